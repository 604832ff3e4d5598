"""With the shipped `ack_wait` a killed worker's job moves on in time; a living worker keeps its own when a leader dies.

CHAOS_KILLS says how many workers are killed, CHAOS_LEADERS how many leaders.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing, suppress
from pathlib import Path

import httpx
import psutil
import pytest
import pytest_asyncio
from fault_matrix import COUNTED
from integration.hostile.models import MODELS
from waiting import eventually

from converter.common.nats_users import NatsUsers
from converter.common.topology import EVENTS, Tuning, stage_durable
from converter.contracts.job import Stage
from converter.devstack.stack import Stack

from .clients import SWEPT, Client
from .cluster import NatsCluster
from .observer import Ledger, history, left_wrong

KILLS = int(os.environ.get("CHAOS_KILLS", "4"))
LEADERS = int(os.environ.get("CHAOS_LEADERS", "1"))
JOBS, WORKERS = 2, 4
"""So that there is a worker for the job of one that was killed."""
MOVES_WITHIN_S = 20.0
"""p99, of a worker that was killed."""
ACK_WAIT_S = Tuning().ack_wait_s
ELECTION_S = 10.0
"""No leader is longer missing."""
SETTINGS = {
    "API_V1_RATE_LIMIT_MAX": "1000000",
    "NATS_REPLICAS": "3",
    "STAGE_MAX_ATTEMPTS": "1000000",
    **SWEPT,
}

pytestmark = [
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300 + 20 * KILLS + 60 * LEADERS),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    tmp_path_factory: pytest.TempPathFactory, cluster: NatsCluster, users: NatsUsers
) -> AsyncIterator[Stack]:
    directory, replaced = tmp_path_factory.mktemp("stack"), {"NATS_URL": cluster.url}
    async with Stack(
        directory, workers={"onnx": WORKERS}, settings=SETTINGS, replaced=replaced, users=users
    ) as running:
        yield running


class Hours:
    """Jobs whose first stage takes hours. Their conversions are frozen, so they cost nothing."""

    def __init__(self) -> None:
        self.worker: dict[str, str] = {}
        """By job, who was the last to start it."""
        self.started_at: dict[str, float] = {}

    async def heard(self, _subject: str, payload: bytes) -> None:
        """A stage was started."""
        event = json.loads(payload)
        job_id = event["job"]["job_id"]
        self.worker[job_id], self.started_at[job_id] = event["fact"]["worker"], time.monotonic()

    async def frozen(self) -> bool:
        """Whether every job's conversion has begun; it is frozen then."""
        conversions = [_conversion(worker) for worker in self.worker.values()]
        for process in filter(None, conversions):
            process.suspend()
        return len(conversions) == JOBS and all(conversions)

    async def moves_on(self, job_id: str, after_s: float) -> float:
        """Kill its worker `after_s` from now; the seconds from there to the next start."""
        await asyncio.sleep(after_s)
        os.kill(_pid(self.worker[job_id]), signal.SIGKILL)
        killed_at = time.monotonic()

        async def started() -> bool:
            return self.started_at[job_id] > killed_at

        await eventually(started, within_s=120)
        return self.started_at[job_id] - killed_at


def _pid(worker: str) -> int:
    """A worker's name ends in its process id and chance."""
    return int(worker.split("-")[-2])


def _conversion(worker: str) -> psutil.Process | None:
    """What the warden of `worker` has forked."""
    with suppress(psutil.NoSuchProcess):
        for warden in psutil.Process(_pid(worker)).children():
            return next(iter(warden.children()), None)
    return None


async def consumers_leader(stack: Stack) -> str:
    """The node that knows which message of the stage is at which worker."""
    info = await stack.bus.api(f"CONSUMER.INFO.{EVENTS}.{stage_durable(Stage.ONNX)}")
    return str(info["cluster"]["leader"])


async def test_a_leaders_death_takes_no_job_from_a_living_worker_and_a_workers_death_holds_its_job_up_for_seconds(
    cluster: NatsCluster, stack: Stack, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    chance, hours = random.Random(1), Hours()  # noqa: S311 - wants a seed
    with closing(Ledger(tmp_path / "ledger")) as ledger:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            client, model = Client(stack, http, ledger, seed=1), MODELS["hours of products"]()
            async with stack.bus.hear("converter.v1.*.stage.started.onnx", hours.heard):
                jobs = [await client.post(f"user{n}", f"user{n}", "onnx", model) for n in range(JOBS)]
                took: list[float] = []
                while len(took) < KILLS:
                    await eventually(hours.frozen, within_s=60)
                    moments = [chance.uniform(0, ACK_WAIT_S / 5) for _ in jobs]
                    took += await asyncio.gather(*map(hours.moves_on, jobs, moments))
                await eventually(hours.frozen, within_s=60)
            before = [await history(stack.bus, job_id) for job_id in jobs]
            for _ in range(LEADERS):
                async with cluster.killed(await consumers_leader(stack)):
                    await asyncio.sleep(ACK_WAIT_S + ELECTION_S)
            assert [await history(stack.bus, job_id) for job_id in jobs] == before, "each is still at its worker"
            for job_id in jobs:
                await client.cancel(job_id)
        wrong = await left_wrong(stack, ledger, within_s=90)
        assert not wrong
    took.sort()
    p99 = took[math.ceil(len(took) * 0.99) - 1]
    moved_on = f"moved on after {took[len(took) // 2]:.1f} s at p50, {p99:.1f} s at p99"
    record_property(COUNTED, f"{len(took)} workers killed: {moved_on}; {LEADERS} leaders killed: no worker fenced")
    assert p99 <= MOVES_WITHIN_S
