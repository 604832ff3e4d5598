"""Jobs go on while every process of the system is killed and frozen at random; afterwards everything holds.

CHAOS_SEED repeats a storm, CHAOS_JOBS and CHAOS_SEEDS make it longer (`make soak`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from fault_matrix import COUNTED

from converter.devstack.addresses import FILE_STORE, ISSUER, NATS, S3
from converter.devstack.stack import Stack

from .clients import SWEPT, Client
from .observer import Ledger, left_wrong
from .storm import Storm

JOBS = int(os.environ.get("CHAOS_JOBS", "8"))
USERS = 4
SEEDS = [int(seed) for seed in os.environ.get("CHAOS_SEEDS", os.environ.get("CHAOS_SEED", "1")).split(",")]
SETTLE_S = 120 + 10 * JOBS
SETTINGS = {
    "API_V1_RATE_LIMIT_MAX": "1000000",
    "STAGE_ACK_WAIT_S": "3",
    "CLAIM_GRACE_S": "2",
    **SWEPT,
}

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(SETTLE_S * 2)]


@pytest.fixture(scope="module")
def workers() -> Mapping[str, int]:
    return {"gateway": 2, "bie": 2}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory, workers: Mapping[str, int]) -> AsyncIterator[Stack]:
    async with Stack(tmp_path_factory.mktemp("stack"), workers=workers, settings=SETTINGS) as running:
        yield running


@pytest.mark.parametrize("seed", SEEDS)
async def test_jobs_come_to_their_end_once_whatever_is_killed(
    stack: Stack, tmp_path: Path, seed: int, record_property: Callable[[str, object], None]
) -> None:
    services = [name for name in stack.pids if name not in {NATS, S3, ISSUER, FILE_STORE}]
    storm = Storm(stack, [*services, *services, NATS, S3, ISSUER, FILE_STORE], seed)
    with closing(Ledger(tmp_path / "ledger")) as ledger:
        await endure(stack, storm, ledger, seed)
    assert len(ledger.accepted) == JOBS

    wrong = await left_wrong(stack, ledger)
    assert not wrong, f"seed {seed}: {storm.blows}"
    assert await locks_are_free(stack, tmp_path, seed), f"seed {seed}: {storm.blows}"
    record_property(COUNTED, f"seed {seed}: {JOBS} jobs, {storm.tally()}")


async def endure(stack: Stack, storm: Storm, ledger: Ledger, seed: int) -> None:
    """Have all users' jobs converted in the storm."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        client = Client(stack, http, ledger, seed)
        raging = asyncio.create_task(storm.rage())
        try:
            async with asyncio.timeout(SETTLE_S), asyncio.TaskGroup() as users:
                for number in range(USERS):
                    users.create_task(client.one_after_the_other(f"user{number}", JOBS // USERS))
        except TimeoutError:
            pytest.fail(f"seed {seed}: clients still wait after {SETTLE_S} s; {storm.blows}")
        finally:
            storm.stop()
            await raging


async def locks_are_free(stack: Stack, directory: Path, seed: int) -> bool:
    """Whether each user can post a job at once, and the next one as soon as that has ended."""
    with closing(Ledger(directory / "later")) as ledger:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            client = Client(stack, http, ledger, seed)
            for number in range(2):
                asked = [
                    client.convert(f"user{user}", f"{seed}-later-{user}-{number}", "onnx") for user in range(USERS)
                ]
                await asyncio.gather(*asked)
            return not client.conflicts
