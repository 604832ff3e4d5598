from __future__ import annotations

import jobs
import msgspec
from deliveries import next_delivery
from waiting import eventually

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.topology import EVENTS, stage_durable
from converter.common.workers import Presence
from converter.contracts.facts import AnyFact, JobCancelled, JobDeleted
from converter.contracts.job import JobRecord, Stage
from converter.devstack.nats_server import NatsServer
from converter.gateway.index import JobIndex
from converter.gateway.past_runs import PastRuns
from converter.gateway.queues import LOOKED_AT, Place, Queues


async def happen(job_log: JobLog, job_id: str, *facts: AnyFact) -> None:
    for fact in facts:
        await job_log.append(job_id, lambda _, fact=fact: fact)  # type: ignore[misc]  # a default for mypy


async def position(queues: Queues, job: JobRecord) -> int | None:
    place = await queues.place(job)
    return place.position if place else None


async def stand(bus: Bus, job_log: JobLog, **expected: int | None) -> None:
    """Wait until somebody who asks for the first time sees the jobs at these positions."""

    async def so() -> bool:
        queues = Queues(bus, JobIndex(bus), job_log, PastRuns())
        states = [await job_log.read(job_id) for job_id in expected]
        found = [await position(queues, state) for state in states if isinstance(state, JobRecord)]
        return found == list(expected.values())

    await eventually(so)


async def take(bus: Bus, stage: Stage) -> str:
    """What a worker pulls next."""
    delivery = await next_delivery(bus, EVENTS, stage_durable(stage), wait_s=5)
    assert delivery
    return delivery.subject.split(".")[2]


async def test_a_position_is_the_order_in_which_workers_are_given_the_jobs(bus: Bus, job_log: JobLog):
    for name in "abcd":
        await happen(job_log, name, jobs.created(name))
    await stand(bus, job_log, a=1, b=2, c=3, d=4)
    await happen(job_log, "b", JobCancelled(at=jobs.AT))
    await stand(bus, job_log, a=1, b=None, c=2, d=3)
    await happen(job_log, "c", JobCancelled(at=jobs.AT), JobDeleted(at=jobs.AT, reason="requested"))
    await stand(bus, job_log, a=1, b=None, d=2)
    assert await take(bus, Stage.ONNX) == "a"
    await happen(job_log, "a", jobs.started(Stage.ONNX))
    await stand(bus, job_log, a=None, b=None, d=1)


async def test_each_stage_has_its_own_queue(bus: Bus, job_log: JobLog):
    for name in "ab":
        await happen(job_log, name, jobs.created(name))
    for name in "ba":
        await happen(job_log, name, jobs.started(Stage.ONNX), jobs.completed(Stage.ONNX))
    await happen(job_log, "c", jobs.created("c"))
    await stand(bus, job_log, a=2, b=1)


async def test_what_was_looked_up_is_kept_for_a_moment_and_then_looked_up_again(bus: Bus, job_log: JobLog):
    queues = Queues(bus, JobIndex(bus), job_log, PastRuns())
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


async def test_places_move_up_while_more_jobs_come_than_are_looked_at(bus: Bus, job_log: JobLog):
    queues, names = (
        Queues(bus, JobIndex(bus), job_log, PastRuns()),
        [f"j{number:03}" for number in range(LOOKED_AT + 3)],
    )
    for name in names:
        await happen(job_log, name, jobs.created(name))
    states = [await job_log.read(name) for name in names]
    waiting = [state for state in states if isinstance(state, JobRecord)]

    async def seen(first: int) -> bool:
        found = [await position(queues, job) for job in waiting[first:]]
        return found[:LOOKED_AT] == list(range(1, LOOKED_AT + 1)) and set(found[LOOKED_AT:]) <= {None}

    for first in range(3):
        await eventually(lambda first=first: seen(first))  # type: ignore[misc]  # a default for mypy
        while await take(bus, Stage.ONNX) != names[first]:
            pass  # one that was taken before, again, since nobody acknowledges


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
    assert await Queues(bus, JobIndex(bus), job_log, past_runs).place(third) == Place(3, None), (
        "without a worker nobody can tell"
    )
    async with Presence(bus, name, concurrency=2).shown(1), Presence(bus, name, concurrency=1).shown(1):
        assert await Queues(bus, JobIndex(bus), job_log, past_runs).place(third) == Place(3, 20.0)


async def test_a_job_is_unattended_while_no_worker_of_its_stage_is_there(bus: Bus, job_log: JobLog):
    await happen(job_log, "a", jobs.created("a"))
    waiting = await job_log.read("a")
    assert isinstance(waiting, JobRecord)
    assert await Queues(bus, JobIndex(bus), job_log, PastRuns()).unattended(waiting)
    async with Presence(bus, stage_durable(Stage.BIE), concurrency=1).shown(1):
        assert await Queues(bus, JobIndex(bus), job_log, PastRuns()).unattended(waiting)
        async with Presence(bus, stage_durable(Stage.ONNX), concurrency=1).shown(1):
            assert not await Queues(bus, JobIndex(bus), job_log, PastRuns()).unattended(waiting)
    await happen(job_log, "a", jobs.started(Stage.ONNX))
    running = await job_log.read("a")
    assert isinstance(running, JobRecord)
    assert not await Queues(bus, JobIndex(bus), job_log, PastRuns()).unattended(running)


async def test_nobody_is_said_to_be_missing_while_the_event_bus_is_away(
    bus: Bus, job_log: JobLog, nats_server: NatsServer
):
    await happen(job_log, "a", jobs.created("a"))
    waiting = await job_log.read("a")
    assert isinstance(waiting, JobRecord)
    await nats_server.kill()
    assert not await Queues(bus, JobIndex(bus), job_log, PastRuns()).unattended(waiting)
