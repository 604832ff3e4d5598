from __future__ import annotations

import jobs
from waiting import eventually

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.topology import EVENTS, stage_durable
from converter.contracts.facts import AnyFact, JobCancelled
from converter.contracts.job import JobRecord, Stage
from converter.gateway.queues import Queues


async def happen(job_log: JobLog, job_id: str, *facts: AnyFact) -> None:
    for fact in facts:
        await job_log.append(job_id, lambda _, fact=fact: fact)  # type: ignore[misc]  # a default for mypy


async def positions(bus: Bus, job_log: JobLog, *job_ids: str) -> list[int | None]:
    """As somebody sees them who asks for the first time."""
    queues = Queues(bus, job_log)
    states = [await job_log.read(job_id) for job_id in job_ids]
    return [await queues.position(state) for state in states if isinstance(state, JobRecord)]


async def take(bus: Bus, stage: Stage) -> str:
    """What a worker pulls next."""
    delivery = await bus.next_delivery(EVENTS, stage_durable(stage), wait_s=5)
    assert delivery
    return delivery.subject.split(".")[2]


async def test_a_position_is_the_order_in_which_workers_are_given_the_jobs(bus: Bus, job_log: JobLog):
    for name in "abcd":
        await happen(job_log, name, jobs.created(name))
    assert await positions(bus, job_log, *"abcd") == [1, 2, 3, 4]
    await happen(job_log, "b", JobCancelled(at=jobs.AT))
    assert await positions(bus, job_log, *"abcd") == [1, None, 2, 3]
    assert await take(bus, Stage.ONNX) == "a"
    await happen(job_log, "a", jobs.started(Stage.ONNX))
    assert await positions(bus, job_log, *"abcd") == [None, None, 1, 2]


async def test_each_stage_has_its_own_queue(bus: Bus, job_log: JobLog):
    for name in "ab":
        await happen(job_log, name, jobs.created(name))
    for name in "ba":
        await happen(job_log, name, jobs.started(Stage.ONNX), jobs.completed(Stage.ONNX))
    await happen(job_log, "c", jobs.created("c"))
    assert await positions(bus, job_log, *"ab") == [2, 1]


async def test_what_was_looked_up_is_kept_for_a_moment_and_then_looked_up_again(bus: Bus, job_log: JobLog):
    queues = Queues(bus, job_log)
    for name in "ab":
        await happen(job_log, name, jobs.created(name))
    states = [await job_log.read(name) for name in "ab"]
    first, second = (state for state in states if isinstance(state, JobRecord))
    assert await queues.position(second) == 2
    await happen(job_log, "a", JobCancelled(at=jobs.AT))
    assert await queues.position(first) == 1

    async def moved_up() -> bool:
        return await queues.position(second) == 1

    await eventually(moved_up, within_s=3)
