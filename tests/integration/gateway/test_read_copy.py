"""What a gateway answers from its copy of the jobs is what the event log says, or it is not answered from the copy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import jobs
import pytest
from faults import Proxy
from waiting import eventually

from converter.common.bus import Bus, EventBusUnavailable, Followed
from converter.common.eventlog import JobLog
from converter.common.identifiers import uuid7
from converter.common.lifecycle import Deleted
from converter.common.settings import NatsSettings
from converter.common.topology import EVENTS
from converter.contracts import subjects
from converter.contracts.facts import AnyFact, JobCancelled, JobDeleted
from converter.contracts.job import JobRecord, Stage
from converter.devstack.nats_server import NatsServer
from converter.gateway.clients.tokens import Principal
from converter.gateway.read_copy import ReadCopy

from .conftest import Form, StartGateway, function_fixture

pytestmark = pytest.mark.asyncio(loop_scope="module")

OWNER, OTHER = (Principal(name, frozenset(), None, 0.0) for name in ("client", "other"))
JOBS_MAX = 5


class Reader:
    """A gateway's copy, behind a connection that a test may break, and another writer."""

    def __init__(self, copy: ReadCopy, own_log: JobLog, proxy: Proxy, other: Bus) -> None:
        self.copy, self.own_log, self.proxy = copy, own_log, proxy
        self.elsewhere, self.bus = JobLog(other, "elsewhere"), other
        self.asked: list[str] = []
        """What the leader was asked."""
        self.told: list[Followed] = []
        self.gaps: list[None] = []

    async def holding(self) -> None:
        async def holds() -> bool:
            return self.copy.holds

        await eventually(holds)

    async def job(self) -> str:
        """A new job, copied."""
        job_id = uuid7()
        await self.holding()
        await happen(self.elsewhere, job_id, jobs.created(job_id))
        assert await self.revision(job_id) == 1
        return job_id

    async def revision(self, job_id: str, caller: Principal = OWNER) -> int:
        state = (await self.copy.read(job_id, caller)).revision.state
        return state.revision if isinstance(state, JobRecord) else 0

    async def reads(self, job_id: str, caller: Principal = OWNER) -> int:
        """How often the leader is asked for one read."""
        await self.bus.round_trip()
        before = len(self.asked)
        await self.revision(job_id, caller)
        await self.bus.round_trip()
        return len(self.asked) - before


async def happen(log: JobLog, job_id: str, *facts: AnyFact) -> None:
    for fact in facts:
        await log.append(job_id, lambda _, fact=fact: fact)  # type: ignore[misc]  # mypy does not infer the default


@function_fixture
async def reader(nats: NatsServer, shared_bus: Bus) -> AsyncIterator[Reader]:
    async with Proxy(nats.port) as proxy, AsyncExitStack() as stack:
        settings = NatsSettings(nats_url=f"nats://127.0.0.1:{proxy.port}")
        bus = await stack.enter_async_context(await Bus.connect(settings, name="api-gateway"))
        own_log, told, gaps = JobLog(bus, "api-gateway"), list[Followed](), list[None]()
        copy = ReadCopy(bus, own_log, told.append, lambda: gaps.append(None), jobs_max=JOBS_MAX)
        reader = Reader(copy, own_log, proxy, shared_bus)
        reader.told, reader.gaps = told, gaps

        async def asked(_subject: str, payload: bytes) -> None:
            reader.asked.append(payload.decode())

        await stack.enter_async_context(shared_bus.hear(f"$JS.API.STREAM.MSG.GET.{EVENTS}", asked))
        await stack.enter_async_context(reader.copy.following())
        yield reader


async def test_a_job_that_was_read_is_not_asked_for_again(reader: Reader):
    job_id = await reader.job()
    assert [await reader.reads(job_id) for _ in range(3)] == [0, 0, 0]


async def test_another_client_costs_the_leader_as_much_as_a_job_that_does_not_exist(reader: Reader):
    job_id = await reader.job()
    for _ in range(2):
        assert await reader.reads(job_id, OTHER) == await reader.reads(uuid7(), OTHER) == 1
    assert await reader.reads(job_id) == 0, "the owner's copy is as it was"


async def test_what_others_change_is_seen_and_told(reader: Reader):
    job_id = await reader.job()
    for revision, fact in ((2, jobs.started(Stage.ONNX)), (3, JobCancelled(at=jobs.AT))):
        await happen(reader.elsewhere, job_id, fact)
        await eventually(lambda revision=revision: changed_to(reader, job_id, revision))  # type: ignore[misc]  # as above
        assert await reader.reads(job_id) == 0
    assert [subjects.job_of(event.subject) for event in reader.told].count(job_id) == 3
    await happen(reader.elsewhere, job_id, JobDeleted(at=jobs.AT, reason="requested"))
    await eventually(lambda: changed_to(reader, job_id, 0))


async def changed_to(reader: Reader, job_id: str, revision: int) -> bool:
    return await reader.revision(job_id) == revision


async def test_what_was_changed_here_is_seen_at_once(reader: Reader):
    for _ in range(20):
        job_id = await reader.job()
        await happen(reader.own_log, job_id, jobs.started(Stage.ONNX))
        assert await reader.revision(job_id) == 2
        await happen(reader.own_log, job_id, JobCancelled(at=jobs.AT), JobDeleted(at=jobs.AT, reason="requested"))
        assert (await reader.copy.read(job_id, OWNER)).revision.state == Deleted()


async def test_reads_never_go_back_while_others_write(reader: Reader):
    job_id = await reader.job()
    seen: list[int] = []
    writing = asyncio.create_task(
        happen(reader.elsewhere, job_id, jobs.started(Stage.ONNX), jobs.completed(Stage.ONNX), jobs.started(Stage.BIE))
    )
    while not writing.done() or seen[-1] < 4:
        seen.append(await reader.revision(job_id))
        await asyncio.sleep(0)
    await writing
    assert seen == sorted(seen)


async def test_a_copy_that_hears_nothing_any_more_is_not_served(reader: Reader):
    job_id = await reader.job()
    reader.proxy.lose_answers = True
    await happen(reader.elsewhere, job_id, JobCancelled(at=jobs.AT))

    async def doubted() -> bool:
        return not reader.copy.holds

    await eventually(doubted)
    with pytest.raises(EventBusUnavailable):
        await reader.copy.read(job_id, OWNER)
    reader.proxy.lose_answers = False
    reader.proxy.cut()
    await reader.holding()
    assert await reader.revision(job_id) == 2


async def test_a_broken_connection_drops_the_copy_and_whoever_was_told_of_events_hears_of_it(reader: Reader):
    job_id = await reader.job()
    gaps = len(reader.gaps)
    reader.proxy.hold_requests = reader.proxy.lose_answers = True
    reader.proxy.cut()

    async def dropped() -> bool:
        return not reader.copy.holds

    await eventually(dropped)
    await happen(reader.elsewhere, job_id, JobCancelled(at=jobs.AT))
    reader.proxy.hold_requests = reader.proxy.lose_answers = False
    reader.proxy.cut()
    await reader.holding()
    assert await reader.revision(job_id) == 2
    assert len(reader.gaps) > gaps


async def test_a_follower_that_the_server_forgot_is_replaced(reader: Reader):
    job_id = await reader.job()
    for name in (await reader.bus.api(f"CONSUMER.NAMES.{EVENTS}"))["consumers"]:
        if not name.startswith(("stage-", "promoter")):
            await reader.bus.api(f"CONSUMER.DELETE.{EVENTS}.{name}")
    await happen(reader.elsewhere, job_id, JobCancelled(at=jobs.AT))
    await eventually(lambda: changed_to(reader, job_id, 2))
    await reader.holding()
    await happen(reader.elsewhere, job_id, JobDeleted(at=jobs.AT, reason="requested"))
    await eventually(lambda: changed_to(reader, job_id, 0))


async def test_the_copy_is_bounded(reader: Reader):
    first, *others = [await reader.job() for _ in range(JOBS_MAX + 1)]
    assert [await reader.reads(job_id) for job_id in others] == [0] * JOBS_MAX
    assert await reader.reads(first) == 1


async def test_two_gateways_show_the_same_job(start_gateway: StartGateway, form: Form, model: bytes):
    one, two = [await start_gateway() for _ in range(2)]
    async with one.client() as here, two.client() as there:
        posted = (await form.post(here, model, targets="onnx")).json()
        path = f"/api/v1/jobs/{posted['job_id']}"
        found = await there.get(path)
        assert (found.status_code, found.json()["status"]) == (200, "queued")
        listed = await there.get("/api/v1/jobs", params={"user_id": form.user_id})
        assert [job["job_id"] for job in listed.json()["items"]] == [posted["job_id"]]
        assert (await here.post(f"{path}/cancel")).status_code == 202

        async def cancelled() -> bool:
            return (await there.get(path)).json()["status"] == "cancelled"

        await eventually(cancelled)
        assert (await here.get(path)).json() == (await there.get(path)).json()
        assert (await here.delete(path)).status_code == 204
        assert (await here.get(path)).status_code == 404

        async def gone() -> bool:
            return (await there.get(path)).status_code == 404

        await eventually(gone)
