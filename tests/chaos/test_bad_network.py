"""Jobs come to their end while the ways to all four servers are cut, slowed down, held up and garbled.

CHAOS_NETWORK says how many faults there are in all (`make soak`: 140 on each way); each kind meets each way as often as
the others, and a seed decides when, in which order and how long.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, closing
from itertools import chain, count, islice, product
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import pytest_asyncio
from fault_matrix import COUNTED
from faults import Proxy

from converter.devstack.addresses import FILE_STORE, ISSUER, NATS, S3
from converter.devstack.loopback import HOST, origin
from converter.devstack.stack import Stack

from .clients import SWEPT, Client
from .observer import Ledger, left_wrong

FAULTS = int(os.environ.get("CHAOS_NETWORK", "20"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
USERS = 3
PAUSE_S, LASTS_S = (0.1, 0.5), (0.1, 0.8)
KINDS: dict[str, dict[str, object]] = {
    "cut": {},
    "slow": {"bytes_per_s": 20_000},
    "late": {"delay_s": 0.3},
    "garbled": {"garbled": True},
    "silent": {"lose_answers": True},
}
"""What is done to a way for a while; whoever is on it then is cut off."""
WELL = {"bytes_per_s": None, "delay_s": 0.0, "garbled": False, "lose_answers": False}
OURS = {"service.crashed", "background.failed", "http.failed", "message.failed"}
"""Lines that tell of a fault of the services themselves."""

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300 + 5 * FAULTS)]


class System(NamedTuple):
    stack: Stack
    ways: Mapping[str, Proxy]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with AsyncExitStack() as opened:

        def way_to(server: str) -> Proxy:
            return Proxy(lambda: stack.server_ports[server])

        ways = {name: await opened.enter_async_context(way_to(name)) for name in (NATS, S3, ISSUER, FILE_STORE)}
        issuer = origin(ways[ISSUER].port)
        settings = {
            "NATS_URL": f"nats://{HOST}:{ways[NATS].port}",
            "MINIO_ENDPOINT_URL": origin(ways[S3].port),
            "MEMBER_CENTER_JWKS_URL": f"{issuer}/jwks",
            "MEMBER_CENTER_TOKEN_URL": f"{issuer}/token",
            "FILE_ACCESS_AGENT_BASE_URL": origin(ways[FILE_STORE].port),
            "JWKS_CACHE_MAX_AGE_MS": "1000",
            "API_V1_RATE_LIMIT_MAX": "1000000",
            "STAGE_ACK_WAIT_S": "3",
            "CLAIM_GRACE_S": "2",
            **SWEPT,
        }
        stack = Stack(tmp_path_factory.mktemp("stack"), workers={"gateway": 2}, settings=settings)
        yield System(await opened.enter_async_context(stack), ways)


async def test_jobs_come_to_their_end_whatever_the_network_does(
    system: System, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    met = Counter[str]()
    with closing(Ledger(tmp_path / "ledger")) as ledger:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http, asyncio.TaskGroup() as tasks:
            breaking = tasks.create_task(break_again_and_again(system.ways, met))
            client = Client(system.stack, http, ledger, SEED)

            async def keep_converting(user: int) -> None:
                number = 0
                while not breaking.done():
                    await client.one_after_the_other(f"user{user}-{number}", 1)
                    number += 1

            for user in range(USERS):
                tasks.create_task(keep_converting(user))
        assert sum(met.values()) == FAULTS
        wrong = await left_wrong(system.stack, ledger, within_s=90)
        assert not wrong, f"seed {SEED}: {met}"
        assert not told_of_faults_of_ours(system.stack)
    ways = ", ".join(f"{way} {number}" for way, number in sorted(met.items()))
    record_property(COUNTED, f"seed {SEED}: {len(ledger.accepted)} jobs, faults on the way to {ways}")


async def break_again_and_again(ways: Mapping[str, Proxy], met: Counter[str]) -> None:
    chance = random.Random(SEED)  # noqa: S311 - wants a seed
    each = list(product(ways, KINDS))
    drawn = chain.from_iterable(chance.sample(each, len(each)) for _ in count())
    for server, kind in islice(drawn, FAULTS):
        await asyncio.sleep(chance.uniform(*PAUSE_S))
        way = ways[server]
        vars(way).update(KINDS[kind])
        await asyncio.sleep(chance.uniform(*LASTS_S))
        vars(way).update(WELL)
        way.cut()
        met[f"{server} {kind}"] += 1


def told_of_faults_of_ours(stack: Stack) -> list[str]:
    lines = (line for log in (stack.directory / "logs").glob("*.log") for line in log.read_text().splitlines())
    return [line for line in lines if line.startswith("{") and json.loads(line)["action"] in OURS]
