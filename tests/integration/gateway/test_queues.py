from __future__ import annotations

import jobs
import msgspec
from waiting import eventually

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.topology import EVENTS, stage_durable
from converter.common.workers import Presence
from converter.contracts.facts import AnyFact, JobCancelled
from converter.contracts.job import JobRecord, Stage
from converter.gateway.past_runs import PastRuns
from converter.gateway.queues import Place, Queues


async def happen(job_log: JobLog, job_id: str, *facts: AnyFact) -> None:
    for fact in facts:
        await job_log.append(job_id, lambda _, fact=fact: fact)  # type: ignore[misc]  # a default for mypy


async def position(queues: Queues, job: JobRecord) -> int | None:
    place = await queues.place(job)
    return place.position if place else None


async def positions(bus: Bus, job_log: JobLog, *job_ids: str) -> list[int | None]:
    """As somebody sees them who asks for the first time."""
    queues = Queues(bus, job_log, PastRuns())
    states = [await job_log.read(job_id) for job_id in job_ids]
    return [await position(queues, state) for state in states if isinstance(state, JobRecord)]


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
    queues = Queues(bus, job_log, PastRuns())
    for name in "ab":
        await happen(job_log, name, jobs.created(name))
    states = [await job_log.read(name) for name in "ab"]
    first, second = (state for state in states if isinstance(state, JobRecord))
    assert await position(queues, second) == 2
    await happen(job_log, "a", JobCancelled(at=jobs.AT))
    assert await position(queues, first) == 1

    async def moved_up() -> bool:
        return await position(queues, second) == 1

    await eventually(moved_up, within_s=3)


async def test_the_wait_is_estimated_from_the_last_runs_and_the_workers_there_are(bus: Bus, job_log: JobLog):
    past_runs = PastRuns()
    async with past_runs.heard(bus):
        for name, seconds in zip("abc", (10, 20, 60), strict=True):
            done_at = f"2026-01-01T00:01:{seconds % 60:02d}.000Z" if seconds < 60 else "2026-01-01T00:02:00.000Z"
            began = msgspec.structs.replace(jobs.started(Stage.ONNX), at="2026-01-01T00:01:00.000Z")
            done = msgspec.structs.replace(jobs.completed(Stage.ONNX), at=done_at)
            await happen(job_log, name, jobs.created(name), began, done)

        async def known() -> bool:
            return past_runs.typical_s(Stage.ONNX) == 20

        await eventually(known)
    for name in ("first", "second", "third"):
        await happen(job_log, name, jobs.created(name))
    third = await job_log.read("third")
    assert isinstance(third, JobRecord)
    for _ in "abc":
        await take(bus, Stage.ONNX)
    name = stage_durable(Stage.ONNX)
    assert await Queues(bus, job_log, past_runs).place(third) == Place(3, None), "without a worker nobody can tell"
    async with Presence(bus, name, concurrency=2).shown(1), Presence(bus, name, concurrency=1).shown(1):
        assert await Queues(bus, job_log, past_runs).place(third) == Place(3, 20.0)
