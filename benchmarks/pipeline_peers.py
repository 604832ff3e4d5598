"""The peers of the rows `pipeline`, `pipeline_power` and `pickup`: their programs, servers and loads."""

from __future__ import annotations

from pathlib import Path

from peer import Peer
from pipeline import QUIET, SLOW, Durability
from postgres_server import PostgresServer
from redis_server import RedisServer
from restate_server import RestateServer

from converter.devstack.nats_server import NatsServer

SYNC_INTERVAL = {Durability.KILL: "2m", Durability.POWER: "always"}


def nats_server(directory: Path, durability: Durability) -> NatsServer:
    """With NATS' own default for what need not outlive a loss of power."""
    return NatsServer(directory, sync_interval=SYNC_INTERVAL[durability])


BULLMQ = Peer("BullMQ", "three_steps.mjs", RedisServer, "bullmq")
FASTSTREAM = Peer("FastStream", "three_steps.py", nats_server, "faststream")
CELERY = Peer("Celery", "three_steps.py", RedisServer, "celery", SLOW)
DBOS = Peer("DBOS", "three_steps.py", PostgresServer, "dbos", SLOW)
RESTATE = Peer("Restate", "three_steps.mjs", RestateServer, "restate")

PEERS = (BULLMQ, FASTSTREAM, CELERY, DBOS, RESTATE)
PICKED_UP = BULLMQ._replace(load=QUIET)
