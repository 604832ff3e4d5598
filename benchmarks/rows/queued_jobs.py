"""What 10, 1,000 and 10,000 queued jobs change: the cost of a job that passes through the queue, and of looking at it.

Each side has an event bus and a gateway of its own, filled before the rounds; NATS flushes its files now and then,
since the disk is not what is measured. In a round 100 jobs are created and, for each, the oldest is claimed from the
consumer of the first stage and taken to its end, with the three writes of the stage runner and its acknowledgement, but
without objects and conversion: the queue stays as long as it is. The CPU time of the gateway, which hears of all of it,
and of nats-server are divided by 100.

Then every look is asked for 20 times: the operators' list, also with a filter that few and one that no job meets; a
user's list, of ten jobs; the queues' figures; one of the waiting jobs. Places in the queue are looked up when a waiting
job is asked for, at most once a second: `a place` is such a look after a pause of more than that. Medians.

The operators' search in file names reads every entry of the index, so it grows; it has no target.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import psutil
from gateway_stack import on_other_cores
from gateways import Gateway, cpu_s, gateway_alone, some_job
from harness import Row, Side, Target

from converter.common.bus import Delivery
from converter.common.topology import (
    EVENTS,
    JOBS_BY_USER,
    bucket_key,
    stage_durable,
)
from converter.common.users import user_key
from converter.contracts import subjects
from converter.contracts.facts import AnyFact, JobCompleted, StageCompleted, StageStarted
from converter.contracts.job import Artifact, Stage, StoredObject, Toolchain, timestamp
from converter.devstack.addresses import CLIENT_ID

QUEUED = (10, 1_000, 10_000)
PASSED, ASKED, PLACES = 100, 20, 3
USER, OF_USER = "one-user", 10
FRESH_AFTER_S = 1.1
FILLED_AT_ONCE, FILL_TIMEOUT_S = 50, 300.0
SHA = "0" * 64
LISTS = {
    "list ms": "/jobs?limit=20",
    "list, one user ms": f"/jobs?limit=20&user_id={USER}",
    "list, no job ms": "/jobs?limit=20&status=FAILED",
    "search ms": "/jobs?limit=20&q=nothing-is-called-so",
    "queue figures ms": "/queues/stats",
}


class Queue:
    """A gateway with `length` queued jobs, and what works on them."""

    def __init__(self, gateway: Gateway, length: int) -> None:
        self._gateway, self._length, self._made = gateway, length, 0
        self._waiting: list[str] = []
        self._http = httpx.AsyncClient(
            trust_env=False, timeout=60, headers={"Authorization": f"Bearer {gateway.token}"}
        )

    async def fill(self) -> None:
        """Write the jobs, and wait until the gateway can list them."""
        for made in range(0, self._length, FILLED_AT_ONCE):
            await asyncio.gather(*(self._create() for _ in range(min(FILLED_AT_ONCE, self._length - made))))
        async with asyncio.timeout(FILL_TIMEOUT_S):
            while await self._newest_listed() != max(self._waiting):  # noqa: ASYNC110 - nobody would set an event
                await asyncio.sleep(0.1)

    async def measure(self) -> Mapping[str, float]:
        """One round."""
        found = await self._passing()
        lists = {figure: f"{self._gateway.internal_url}{path}" for figure, path in LISTS.items()}
        lists["a user's list ms"] = f"{self._gateway.url}/api/v1/jobs?user_id={USER}"
        for figure, url in lists.items():
            found[figure] = await self._asked([url] * ASKED)
        waiting = [self._job_url(job_id) for job_id in random.sample(self._waiting, OF_USER) * (ASKED // OF_USER)]
        found["a job ms"] = await self._asked(waiting)
        found["a place ms"] = await self._asked(waiting[:PLACES], pause_s=FRESH_AFTER_S)
        return found

    async def _passing(self) -> dict[str, float]:
        """What each server spends on a job from its creation to its end."""
        spending = {"gateway": self._gateway.process, "NATS": psutil.Process(self._gateway.nats.pid)}
        began = {name: cpu_s(process) for name, process in spending.items()}
        for _ in range(PASSED):
            await self._create()
            await self._take_one()
        return {
            f"{name} CPU ms per job": (cpu_s(process) - began[name]) / PASSED * 1000
            for name, process in spending.items()
        }

    async def _take_one(self) -> None:
        delivery = await self._delivered(Stage.ONNX)
        job_id = subjects.job_of(delivery.subject)
        for fact in _conversion():
            await self._gateway.job_log.append(job_id, lambda _, fact=fact: fact)  # type: ignore[misc]  # mypy does not infer the default
        await delivery.ack()
        await (await self._delivered(Stage.BIE)).ack()  # which passes over a job that is complete
        self._waiting.remove(job_id)

    async def _delivered(self, stage: Stage) -> Delivery:
        async with self._gateway.bus.feed(EVENTS, stage_durable(stage)) as feed:
            delivery = await feed.next(wait_s=5)
        if delivery is None:
            raise RuntimeError(f"nothing waits for {stage}")
        return delivery

    async def _create(self) -> None:
        user_id = USER if self._made < OF_USER else f"user-{self._made}"
        fact = some_job(number=self._made, user_id=user_id)
        self._made += 1
        key = bucket_key(JOBS_BY_USER, f"{user_key(CLIENT_ID, user_id)}.{fact.job_id}")
        await self._gateway.bus.store(key, b"")
        await self._gateway.job_log.append(fact.job_id, lambda _: fact)
        self._waiting.append(fact.job_id)

    async def _newest_listed(self) -> str | None:
        answer = await self._http.get(f"{self._gateway.internal_url}/jobs?limit=1")
        listed = answer.raise_for_status().json()["jobs"]
        return listed[0]["job_id"] if listed else None

    async def _asked(self, urls: Sequence[str], *, pause_s: float = 0.0) -> float:
        took_ms = []
        for url in urls:
            await asyncio.sleep(pause_s)
            began = time.perf_counter()
            (await self._http.get(url)).raise_for_status()
            took_ms.append((time.perf_counter() - began) * 1000)
        return statistics.median(took_ms)

    def _job_url(self, job_id: str) -> str:
        return f"{self._gateway.url}/api/v1/jobs/{job_id}"


def _conversion() -> list[AnyFact]:
    """What the stage runner writes of a job whose only stage is the first."""
    at, key = timestamp(), "onnx/1"
    done = StageCompleted(
        at=at,
        stage=Stage.ONNX,
        attempt=1,
        worker="w",
        artifact=Artifact(
            object_key=key, size_bytes=1, sha256=SHA, filename="m.onnx", media_type="application/onnx", created_at=at
        ),
        report=StoredObject(object_key=f"{key}/report", size_bytes=1, sha256=SHA),
        toolchain=Toolchain(name="none", version="1"),
    )
    return [StageStarted(at=at, stage=Stage.ONNX, attempt=1, worker="w"), done, JobCompleted(at=at)]


@asynccontextmanager
async def sides(directory: Path) -> AsyncIterator[Sequence[Side]]:
    """A gateway and an event bus for each length; the other servers are of the first."""
    with on_other_cores() as core:
        async with AsyncExitStack() as stack:
            first: Gateway | None = None
            queues = {}
            for length in QUEUED:
                gateway = await stack.enter_async_context(
                    gateway_alone(directory / str(length), core, beside=first, sync_interval="2m")
                )
                first = first or gateway
                queues[length] = Queue(gateway, length)
                await queues[length].fill()
            yield [Side(str(length), queue.measure) for length, queue in queues.items()]


_FLAT = (
    "gateway CPU ms per job",
    "NATS CPU ms per job",
    "list ms",
    "a user's list ms",
    "queue figures ms",
    "a job ms",
    "a place ms",
)

ROW = Row(
    name="queued_jobs",
    title="Many queued jobs",
    text=__doc__ or "",
    sides=sides,
    targets=tuple(Target(figure, str(QUEUED[-1]), str(QUEUED[0]), at_most=1.5) for figure in _FLAT),
    axis="queued jobs",
)
