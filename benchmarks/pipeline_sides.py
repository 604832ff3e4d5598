"""Our own sides of the rows `pipeline`, `pipeline_power` and `pickup`, and what makes sides of programs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from harness import Side
from peer import Peer, side
from pipeline import SLOW, Durability
from pipeline_peers import nats_server

CONVERTER = Peer("converter", "pipeline_converter.py", nats_server)
WITH_OBJECTS = Peer("converter, with objects", "pipeline_objects.py", nats_server, load=SLOW)
BARE = Peer("bare nats-py", "pipeline_bare.py", nats_server)


@asynccontextmanager
async def sides(durability: Durability, peers: Sequence[Peer], directory: Path) -> AsyncIterator[Sequence[Side]]:
    """A side for each of `peers`; each round starts and ends all that it needs."""
    yield [side(peer, durability, directory) for peer in peers]
