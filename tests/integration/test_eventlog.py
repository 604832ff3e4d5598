"""The log keeps each fact once, whatever becomes of the answers."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from functools import partial

import msgspec
import pytest
from faults import Proxy
from jobs import AT, created, started
from waiting import eventually

from converter.common.bus import Bus, EventBusUnavailable
from converter.common.eventlog import JobLog
from converter.common.identifiers import uuid7
from converter.common.lifecycle import Deleted, IllegalTransition, State
from converter.common.settings import NatsSettings
from converter.common.topology import EVENTS, JOB_STATE, bucket_key, bucket_stream
from converter.contracts import subjects
from converter.contracts.facts import AnyFact, Event, JobCancelled, JobCreated, JobDeleted, StageStarted
from converter.contracts.job import JobRecord, JobStatus, Stage
from converter.devstack.nats_server import NatsServer


def cancel(state: State) -> JobCancelled | None:
    return JobCancelled(at=AT) if isinstance(state, JobRecord) and state.active else None


async def swallowing(proxy: Proxy) -> bool:
    return proxy.hold_requests


async def has_events(bus: Bus, count: int) -> bool:
    with contextlib.suppress(EventBusUnavailable):
        return int((await bus.api(f"STREAM.INFO.{EVENTS}"))["state"]["messages"]) >= count
    return False


async def test_the_last_message_is_the_state_and_the_projection_follows(bus: Bus, job_log: JobLog) -> None:
    job_id = uuid7()
    await job_log.append(job_id, lambda _: created(job_id))
    job = await job_log.append(job_id, lambda _: started(Stage.ONNX))
    assert isinstance(job, JobRecord)
    assert (job.status, job.revision) == (JobStatus.RUNNING, 2)
    assert await job_log.read(job_id) == job
    assert [type(event.fact) for event in await job_log.history(job_id)] == [JobCreated, StageStarted]
    last = await bus.last(EVENTS, subjects.job_root(job_id))
    assert last is not None
    assert last.headers["Nats-Msg-Id"] == last.headers["ce-id"], "the server knows a resent event by it"

    async def projected() -> bool:
        found = await bus.last(bucket_stream(JOB_STATE), bucket_key(JOB_STATE, job_id))
        return found is not None and msgspec.json.decode(found.data, type=Event).job == job

    await eventually(projected)


async def test_of_many_writers_at_once_exactly_one_wins_each_step(nats_server: NatsServer, job_log: JobLog) -> None:
    job_id = uuid7()
    await job_log.append(job_id, lambda _: created(job_id))

    async def contend(number: int) -> int:
        worker, wins = f"w{number}", 0

        def start(state: State) -> AnyFact | None:
            assert isinstance(state, JobRecord)
            here = state.stages[Stage.ONNX]
            return started(Stage.ONNX, here.attempt + 1, worker) if here.attempt < 20 else None

        async with await Bus.connect(NatsSettings(nats_url=nats_server.url), name=worker) as mine:
            own_log = JobLog(mine, worker)
            while True:
                state = await own_log.append(job_id, start)
                assert isinstance(state, JobRecord)
                if state.stages[Stage.ONNX].worker == worker and state.stages[Stage.ONNX].attempt <= 20:
                    wins += 1
                if state.stages[Stage.ONNX].attempt >= 20:
                    return wins

    await asyncio.gather(*(contend(number) for number in range(5)))
    history = await job_log.history(job_id)
    attempts = [event.fact.attempt for event in history if isinstance(event.fact, StageStarted)]
    assert attempts == list(range(1, 21))
    assert [event.job.revision for event in history if event.job] == list(range(1, 22))


@pytest.mark.parametrize("broken", ["lose_answers", "hold_requests"])
async def test_a_write_that_the_network_swallows_is_stored_once(
    nats_server: NatsServer, job_log: JobLog, broken: str
) -> None:
    """The answer is lost (it is stored already), or the message itself (it has to be sent again)."""
    job_id = uuid7()
    async with Proxy(nats_server.port) as proxy:
        settings = NatsSettings(nats_url=f"nats://127.0.0.1:{proxy.port}")
        async with await Bus.connect(settings, name="writer") as bus:

            def create_and_break(state: State) -> JobCreated | None:
                if state is not None:
                    return None
                setattr(proxy, broken, True)
                return created(job_id)

            writing = asyncio.create_task(JobLog(bus, "writer").append(job_id, create_and_break))
            if broken == "lose_answers":
                await eventually(partial(job_log.read, job_id))
            else:
                await eventually(partial(swallowing, proxy))
            setattr(proxy, broken, False)
            proxy.cut()
            state = await writing
    assert state == await job_log.read(job_id)
    assert len(await job_log.history(job_id)) == 1


async def test_a_server_that_dies_while_it_is_written_to_loses_and_doubles_nothing(nats_server: NatsServer) -> None:
    jobs = [uuid7() for _ in range(30)]
    async with await Bus.connect(NatsSettings(nats_url=nats_server.url), name="writer") as bus:
        log = JobLog(bus, "writer")

        async def live(job_id: str) -> None:
            await log.append(job_id, lambda _: created(job_id))
            await log.append(job_id, lambda _: started(Stage.ONNX))
            await log.append(job_id, cancel)

        writing = asyncio.gather(*(live(job_id) for job_id in jobs))
        for stored in (10, 50):
            await eventually(partial(has_events, bus, stored))
            await nats_server.kill()
            await nats_server.start()
        await writing
        for job_id in jobs:
            history = await log.history(job_id)
            assert [type(event.fact) for event in history] == [JobCreated, StageStarted, JobCancelled]


async def test_a_writer_gives_up_when_it_cannot_find_out(nats_server: NatsServer, bus: Bus) -> None:
    impatient = JobLog(bus, "impatient", settle_timeout_s=0.2)
    nats_server.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(EventBusUnavailable):
            await impatient.append(uuid7(), lambda _: created("x"))
    finally:
        nats_server.send_signal(signal.SIGCONT)


async def test_a_writer_that_decided_from_an_old_state_decides_again(nats_server: NatsServer, job_log: JobLog) -> None:
    """Its bytes are held up on their way; meanwhile another writes."""
    job_id = uuid7()
    await job_log.append(job_id, lambda _: created(job_id))
    seen: list[State] = []
    async with Proxy(nats_server.port) as proxy:
        settings = NatsSettings(nats_url=f"nats://127.0.0.1:{proxy.port}")
        async with await Bus.connect(settings, name="slow") as bus:

            def decide(state: State) -> AnyFact | None:
                seen.append(state)
                proxy.hold_requests = len(seen) == 1
                return started(Stage.ONNX, len(seen))

            writing = asyncio.create_task(JobLog(bus, "slow").append(job_id, decide))
            await eventually(partial(swallowing, proxy))
            await job_log.append(job_id, lambda _: started(Stage.ONNX, 1, "other"))
            proxy.hold_requests = False
            proxy.cut()
            state = await writing
    assert isinstance(state, JobRecord)
    assert state.stages[Stage.ONNX].attempt == 2
    assert [seen_state.revision for seen_state in seen if isinstance(seen_state, JobRecord)] == [1, 2]


async def test_what_is_no_event_does_not_hide_the_jobs_state(bus: Bus, job_log: JobLog) -> None:
    job_id = uuid7()
    await job_log.append(job_id, lambda _: created(job_id))
    await bus.store(f"converter.v1.{job_id}.job.completed", b"no event")
    state = await job_log.read(job_id)
    assert isinstance(state, JobRecord)
    assert state.status is JobStatus.QUEUED
    state = await job_log.append(job_id, cancel)
    assert isinstance(state, JobRecord)
    assert [type(event.fact) for event in await job_log.history(job_id)] == [JobCreated, JobCancelled]


async def test_another_jobs_event_is_not_this_jobs_state(bus: Bus, job_log: JobLog) -> None:
    """As an answer that was aimed at the job's subjects would leave it there, headers and all."""
    job_id, other = uuid7(), uuid7()
    await job_log.append(job_id, lambda _: created(job_id))
    await job_log.append(other, lambda _: created(other))
    await job_log.append(other, cancel)
    await job_log.append(other, lambda _: JobDeleted(at=AT, reason="expired"))
    for kind in ("job.cancelled", "job.deleted"):
        found = await bus.last(EVENTS, f"converter.v1.{other}.{kind}")
        assert found
        headers = {name: value for name, value in found.headers.items() if name.startswith("ce-")}
        await bus.store(f"converter.v1.{job_id}.{kind}", found.data, headers=headers)
        state = await job_log.read(job_id)
        assert isinstance(state, JobRecord)
        assert (state.job_id, state.status) == (job_id, JobStatus.QUEUED)
    assert [type(event.fact) for event in await job_log.history(job_id)] == [JobCreated]
    state = await job_log.append(job_id, cancel)
    assert isinstance(state, JobRecord)
    assert state.revision == 2


async def test_a_fact_of_a_newer_release_is_no_obstacle(bus: Bus, job_log: JobLog) -> None:
    job_id = uuid7()
    job = await job_log.append(job_id, lambda _: created(job_id))
    newer = {
        "fact": {"type": "job.paused", "at": AT},
        "job": msgspec.to_builtins(job) | {"mood": "calm", "revision": 2},
    }
    await bus.store(f"converter.v1.{job_id}.job.paused", msgspec.json.encode(newer))
    state = await job_log.append(job_id, cancel)
    assert isinstance(state, JobRecord)
    assert (state.status, state.revision) == (JobStatus.CANCELLED, 3)


async def test_a_job_whose_creation_was_superseded_can_never_be_created(job_log: JobLog) -> None:
    job_id = uuid7()
    await job_log.append(job_id, lambda _: JobDeleted(at=AT, reason="superseded"))
    with pytest.raises(IllegalTransition):
        await job_log.append(job_id, lambda _: created(job_id))
    assert await job_log.read(job_id) == Deleted()


async def test_waiting_ends_with_the_state_that_was_waited_for(job_log: JobLog) -> None:
    job_id = uuid7()
    await job_log.append(job_id, lambda _: created(job_id))

    def ended(state: State) -> bool:
        return isinstance(state, JobRecord) and not state.active

    waiting = asyncio.create_task(job_log.wait(job_id, ended, timeout_s=5))
    await job_log.append(job_id, cancel)
    state = await waiting
    assert isinstance(state, JobRecord)
    assert state.status is JobStatus.CANCELLED
    with pytest.raises(TimeoutError):
        await job_log.wait(job_id, lambda state: state is None, timeout_s=0.1)


async def test_an_older_writer_keeps_what_a_newer_one_added(bus: Bus, job_log: JobLog) -> None:
    job_id = uuid7()
    await job_log.append(job_id, lambda _: created(job_id))
    subject = f"converter.v1.{job_id}"
    newer = msgspec.json.decode(await last_payload(bus, job_id))
    newer["job"] |= {"priority": 7, "revision": 2}
    newer["fact"] = {"type": "job.prioritised", "at": AT}
    await bus.store(f"{subject}.job.prioritised", msgspec.json.encode(newer))

    await job_log.append(job_id, lambda _: started(Stage.ONNX))
    written = msgspec.json.decode(await last_payload(bus, job_id))["job"]
    assert (written["revision"], written["status"], written["priority"]) == (3, "running", 7)


async def last_payload(bus: Bus, job_id: str) -> bytes:
    found = await bus.last(EVENTS, f"converter.v1.{job_id}.>")
    assert found
    return found.data
