"""What operators are told of the queues, held against the log and the workers that there are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import jobs
import pytest
from deliveries import next_delivery

from converter.common.bus import Bus, Delivery
from converter.common.eventlog import JobLog
from converter.common.identifiers import uuid7
from converter.common.topology import EVENTS, PROMOTER, stage_durable
from converter.common.workers import Presence
from converter.contracts.facts import PromotionRequested
from converter.contracts.job import Stage

from .conftest import GatewayProcess, function_fixture

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOBS = 50
NOTHING = {"pending": 0, "in_progress": 0, "redelivered": 0, "oldest_age_s": None, "workers": []}


@function_fixture
async def operators(gateway: GatewayProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.operators() as opened:
        yield opened


async def standing(operators: httpx.AsyncClient, queue: str) -> dict[str, Any]:
    answer = (await operators.get("/queues/stats")).json()
    assert list(answer["stages"]) == ["onnx", "bie", "nef", "promoter"]
    found: dict[str, Any] = answer["stages"][queue]
    return found


def counts(found: dict[str, Any]) -> tuple[int, int, int]:
    return found["pending"], found["in_progress"], found["redelivered"]


async def taken(bus: Bus, durable: str) -> Delivery:
    delivery = await next_delivery(bus, EVENTS, durable, wait_s=5)
    assert delivery
    return delivery


async def test_fifty_jobs_are_counted_wherever_they_are(operators: httpx.AsyncClient, shared_bus: Bus):
    job_log, ids = JobLog(shared_bus, "test"), [uuid7() for _ in range(JOBS)]
    onnx, bie = stage_durable(Stage.ONNX), stage_durable(Stage.BIE)
    assert await standing(operators, "onnx") == NOTHING
    for job_id in ids:
        await job_log.append(job_id, lambda _, job_id=job_id: jobs.created(job_id))  # type: ignore[misc]  # a default for mypy
    assert counts(await standing(operators, "onnx")) == (JOBS, 0, 0)

    first = [await taken(shared_bus, onnx) for _ in range(20)]
    assert counts(await standing(operators, "onnx")) == (JOBS - 20, 20, 0)
    for delivery in first[5:]:  # out of order: the first five are still at work
        job_id = delivery.subject.split(".")[2]
        for fact in (jobs.started(Stage.ONNX), jobs.completed(Stage.ONNX)):
            await job_log.append(job_id, lambda _, fact=fact: fact)  # type: ignore[misc]  # a default for mypy
        await delivery.ack()
    assert counts(await standing(operators, "onnx")) == (JOBS - 20, 5, 0)
    assert counts(await standing(operators, "bie")) == (15, 0, 0)

    await first[0].nak()
    further: list[Delivery] = []
    while (again := await taken(shared_bus, onnx)).subject != first[0].subject:
        further.append(again)  # asked for before the server knew
    assert again.deliveries == 2
    assert counts(await standing(operators, "onnx")) == (JOBS - 20 - len(further), 5 + len(further), 1)

    found = await standing(operators, "onnx")
    oldest = await shared_bus.last(EVENTS, first[0].subject)
    assert oldest is not None
    later = await shared_bus.last(EVENTS, f"converter.v1.{ids[5]}.job.created")
    assert later is not None
    newest_age_s = found["oldest_age_s"] - (later.stored_at - oldest.stored_at).total_seconds()
    assert 0 <= newest_age_s < found["oldest_age_s"], "it is that of the first job, which is not done"

    for delivery in (again, *first[1:5], *further):
        await delivery.ack()
    while delivery := await next_delivery(shared_bus, EVENTS, onnx, wait_s=0.5):
        await delivery.ack()
    while delivery := await next_delivery(shared_bus, EVENTS, bie, wait_s=0.5):
        await delivery.ack()
    assert await standing(operators, "onnx") == NOTHING
    assert await standing(operators, "bie") == NOTHING


async def test_the_promoters_queue_is_told_as_well(operators: httpx.AsyncClient, shared_bus: Bus):
    job_log, job_id = JobLog(shared_bus, "test"), uuid7()
    requested = PromotionRequested(
        at=jobs.AT, promotion_id="p", source=Stage.ONNX, target_object_key="k", deadline=jobs.AT
    )
    created = jobs.created(job_id, last_stage=Stage.ONNX)
    for fact in (created, jobs.started(Stage.ONNX), jobs.completed(Stage.ONNX), requested):
        await job_log.append(job_id, lambda _, fact=fact: fact)  # type: ignore[misc]  # a default for mypy
    assert counts(await standing(operators, "promoter")) == (1, 0, 0)
    await (await taken(shared_bus, PROMOTER)).ack()
    await (await taken(shared_bus, stage_durable(Stage.ONNX))).ack()
    assert await standing(operators, "promoter") == NOTHING


async def test_workers_are_told_with_what_they_do(operators: httpx.AsyncClient, shared_bus: Bus):
    bie = stage_durable(Stage.BIE)
    idle, busy = (Presence(shared_bus, bie, concurrency=count) for count in (1, 2))
    async with idle.shown(60):
        with busy.working_on("a"), busy.working_on("b"):
            async with busy.shown(60):
                workers = {worker["id"]: worker for worker in (await standing(operators, "bie"))["workers"]}
                assert (await standing(operators, "nef"))["workers"] == []
    assert set(workers) == {idle.worker, busy.worker}
    found = workers[busy.worker]
    assert (found["state"], found["job_id"], found["jobs"], found["concurrency"]) == ("busy", "a", ["a", "b"], 2)
    found = workers[idle.worker]
    assert (found["state"], found["job_id"], found["jobs"], found["concurrency"]) == ("idle", None, [], 1)
    assert found["since"]
    assert (await standing(operators, "bie"))["workers"] == [], "they have gone"
