"""What a client sees of a job while it goes on: events, progress, logs, reports."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import jobs
import msgspec
import psutil
import pytest
import reports
from msgspec.structs import replace
from waiting import eventually

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.provision import provision
from converter.common.settings import NatsSettings
from converter.common.storage import open_local
from converter.common.topology import Tuning
from converter.contracts import subjects
from converter.contracts.facts import AnyFact, JobCancelled, JobCompleted, JobDeleted, JobFailed, StageFailed
from converter.contracts.failures import job_error
from converter.contracts.job import Stage, StoredObject
from converter.contracts.live import LogWritten, ProgressReported
from converter.devstack.nats_server import NatsServer
from converter.gateway.endpoints.reports import MOST_BYTES_ON_A_PAGE
from converter.gateway.live import KEPT_FOR_A_CLIENT
from converter.gateway.report.page import POLICY
from converter.gateway.representation import no_worker

from .conftest import Form, GatewayProcess, Issuer, StartGateway, function_fixture, running

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Seen(NamedTuple):
    """One server-sent event."""

    id: str | None
    kind: str
    data: Any


class Job:
    """A job whose stages a test plays."""

    def __init__(self, job_id: str, bus: Bus, storage_dir: Path) -> None:
        self.job_id, self.path = job_id, f"/api/v1/jobs/{job_id}"
        self.log, self._bus, self._store = JobLog(bus, "test"), bus, open_local(storage_dir)

    async def happen(self, *facts: AnyFact) -> None:
        for fact in facts:
            await self.log.append(self.job_id, lambda _, fact=fact: fact)  # type: ignore[misc]  # a default for mypy

    async def tell(self, stage: Stage, attempt: int, fraction: float, activity: str) -> None:
        told = ProgressReported(at=jobs.AT, stage=stage, attempt=attempt, fraction=fraction, activity=activity)
        await self._bus.emit(subjects.progress(stage, self.job_id), msgspec.json.encode(told))

    async def write(self, stage: Stage, attempt: int, line: str) -> None:
        written = LogWritten(at=jobs.AT, stage=stage, attempt=attempt, line=line)
        await self._bus.store(subjects.log(stage, self.job_id), msgspec.json.encode(written))

    async def garble(self, stage: Stage) -> None:
        """Have among the lines what is none."""
        for payload in (b"{", b'{"newer":' + b"[" * 10_000, b'{"at":"' + jobs.AT.encode() + b'","stage":"zip"}'):
            await self._bus.store(subjects.log(stage, self.job_id), payload)

    async def stored(self, name: str, content: bytes) -> StoredObject:
        return await self._store.put(f"jobs/{self.job_id}/{name}", content)

    async def complete(self, stage: Stage, report: bytes = b"{}", log: bytes | None = None) -> None:
        """A stage from its start to its end."""
        await self.happen(jobs.started(stage))
        await self.happen(
            replace(
                jobs.completed(stage),
                report=await self.stored(f"{stage}/1/report", report),
                log=await self.stored(f"{stage}/1/log", log) if log is not None else None,
            )
        )


@function_fixture
async def client(gateway: GatewayProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client() as opened:
        yield opened


@function_fixture
async def job(client: httpx.AsyncClient, shared_bus: Bus, storage_dir: Path, model: bytes) -> Job:
    """Up to the BIE."""
    posted = await Form().post(client, model, targets="bie")
    return Job(posted.json()["job_id"], shared_bus, storage_dir)


@asynccontextmanager
async def following(client: httpx.AsyncClient, path: str, **headers: str) -> AsyncIterator[AsyncIterator[Seen]]:
    """The events of a stream as they come."""
    async with asyncio.timeout(20), client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"

        async def events() -> AsyncIterator[Seen]:
            fields: dict[str, str] = {}
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if line:
                    fields[name] = value
                elif "data" in fields:
                    yield Seen(fields.get("id"), fields["event"], json.loads(fields["data"]))
                    fields = {}

        yield events()


async def everything(client: httpx.AsyncClient, path: str, **headers: str) -> list[Seen]:
    async with following(client, path, **headers) as events:
        return [event async for event in events]


async def test_head_of_a_stream_follows_nothing_and_leaves_the_connection_to_others(gateway: GatewayProcess, job: Job):
    async with asyncio.timeout(20), gateway.client() as client:
        for stream in (f"{job.path}/events", f"{job.path}/logs?follow=true"):
            assert (await client.head(stream)).status_code == 200
            assert (await client.get(job.path)).status_code == 200


async def test_each_revision_is_one_event_with_the_job_after_it(client: httpx.AsyncClient, job: Job):
    async with following(client, f"{job.path}/events") as events:
        first = await anext(events)
        shown = (await client.get(job.path)).json()
        # Its place is looked up at most once a second, so the stream may have been told before the job had one.
        assert first == ("1", "job.created", shown | {"queue_position": first.data["queue_position"]})
        assert first.data["warnings"] == [no_worker(Stage.ONNX)]
        await job.happen(jobs.started(Stage.ONNX))
        second = await anext(events)
        assert (second.id, second.kind, second.data["status"]) == ("2", "stage.started", "running")
        await job.happen(jobs.completed(Stage.ONNX), jobs.started(Stage.BIE), jobs.completed(Stage.BIE))
        third = [await anext(events) for _ in range(3)]
        assert [(event.id, event.kind, event.data["stage"]) for event in third] == [
            ("3", "stage.completed", "bie"),
            ("4", "stage.started", "bie"),
            ("5", "stage.completed", None),
        ]
        await job.happen(JobCompleted(at=jobs.AT))
        last = [event async for event in events]
    assert [(event.id, event.kind) for event in last] == [("6", "job.completed")]
    assert last[0].data == (await client.get(job.path)).json()
    # Where the job stood in its queue, and who was there, is not known of a revision that is past.
    past = (await everything(client, f"{job.path}/events"))[0].data
    assert past == shown | {"queue_position": None, "warnings": []}


async def test_a_client_that_comes_back_gets_each_revision_once(client: httpx.AsyncClient, job: Job):
    facts: list[AnyFact] = [
        jobs.started(Stage.ONNX),
        jobs.completed(Stage.ONNX),
        jobs.started(Stage.BIE),
        jobs.completed(Stage.BIE),
        JobCompleted(at=jobs.AT),
    ]
    seen: list[str | None] = []
    for number, fact in enumerate(facts, start=1):
        headers = {"Last-Event-ID": seen[-1] or ""} if seen else {}
        async with following(client, f"{job.path}/events", **headers) as events:
            while len(seen) < number:
                seen.append((await anext(events)).id)
        await job.happen(fact)
    seen += [event.id for event in await everything(client, f"{job.path}/events", **{"Last-Event-ID": str(seen[-1])})]
    assert seen == ["1", "2", "3", "4", "5", "6"]
    done = await client.get(f"{job.path}/events", headers={"Last-Event-ID": "6"})
    assert (done.status_code, done.content) == (204, b""), "an EventSource stops connecting"
    assert [event.id for event in await everything(client, f"{job.path}/events")] == seen


@pytest.mark.parametrize("end", ["cancelled", "failed", "deleted"])
async def test_the_stream_ends_with_the_job(client: httpx.AsyncClient, job: Job, end: str):
    await job.happen(jobs.started(Stage.ONNX))
    error = job_error("conversion_failed", "it broke", stage=Stage.ONNX)
    failed = StageFailed(at=jobs.AT, stage=Stage.ONNX, attempt=1, error=error)
    facts: dict[str, list[AnyFact]] = {
        "cancelled": [JobCancelled(at=jobs.AT)],
        "failed": [failed, JobFailed(at=jobs.AT, error=error)],
        "deleted": [failed, JobDeleted(at=jobs.AT, reason="requested")],
    }
    async with following(client, f"{job.path}/events") as events:
        assert [(await anext(events)).id for _ in range(2)] == ["1", "2"]
        await job.happen(*facts[end])
        last = [event async for event in events]
    assert last[-1].kind == f"job.{end}"
    assert [event.id for event in last] == [str(number) for number in range(3, 3 + len(last))]
    if end == "deleted":
        assert last[-1].data == {"job_id": job.job_id, "reason": "requested"}
    else:
        assert last[-1].data["status"] == end


async def test_progress_is_told_without_an_id_and_only_of_the_attempt_that_runs(client: httpx.AsyncClient, job: Job):
    await job.happen(jobs.started(Stage.ONNX))
    await job.tell(Stage.ONNX, 1, 0.25, "checking")

    async def shown() -> bool:
        return (await client.get(job.path)).json()["activity"] == "checking"

    await eventually(shown)
    assert (await client.get(job.path)).json()["progress"] == 0.125
    async with following(client, f"{job.path}/events") as events:
        assert [(await anext(events)).kind for _ in range(2)] == ["job.created", "stage.started"]
        expected = {"job_id": job.job_id, "stage": "onnx", "fraction": 0.25, "activity": "checking", "progress": 0.125}
        assert await anext(events) == (None, "progress", expected)
        await job.tell(Stage.ONNX, 2, 0.9, "an attempt that is not recorded")
        await job.tell(Stage.BIE, 1, 0.9, "a stage that does not run")
        await job.tell(Stage.ONNX, 1, 0.5, "optimising")
        told = await anext(events)
        assert (told.id, told.data["activity"], told.data["progress"]) == (None, "optimising", 0.25)
        await job.happen(jobs.completed(Stage.ONNX))
        assert (await anext(events)).id == "3"
    resource = (await client.get(job.path)).json()
    assert (resource["activity"], resource["progress"]) == (None, 0.5)


async def test_a_bad_last_event_id_is_refused(client: httpx.AsyncClient, job: Job):
    answer = await client.get(f"{job.path}/events", headers={"Last-Event-ID": "1; x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "validation_error")


async def test_the_id_of_an_event_that_the_job_has_not_had_is_refused(client: httpx.AsyncClient, job: Job):
    async def refusal(last: str) -> str:
        answer = await client.get(f"{job.path}/events", headers={"Last-Event-ID": last})
        assert answer.status_code == 400
        (field,) = answer.json()["error"]["details"]["fields"]
        return str(field["message"])

    assert "the id of an event of this job" in await refusal("2")
    await job.happen(JobCancelled(at=jobs.AT))
    assert "the job's last event is 2" in await refusal("40")


async def test_many_clients_follow_one_job_and_those_that_vanish_are_forgotten(client: httpx.AsyncClient, job: Job):
    async def follow() -> list[Seen]:
        return await everything(client, f"{job.path}/events")

    staying = [asyncio.create_task(follow()) for _ in range(20)]
    async with following(client, f"{job.path}/events") as events:
        await anext(events)
    await job.complete(Stage.ONNX)
    await job.happen(JobCancelled(at=jobs.AT))
    for seen in await asyncio.gather(*staying):
        assert [event.id for event in seen] == ["1", "2", "3", "4"]


async def test_more_events_at_once_than_are_kept_for_a_client_come_each_once_and_in_order(
    client: httpx.AsyncClient, job: Job
):
    async with following(client, f"{job.path}/events") as events, following(client, f"{job.path}/events") as others:
        assert (await anext(events)).id == (await anext(others)).id == "1"
        await job.happen(*(jobs.started(Stage.ONNX, n, f"w{n}") for n in range(1, 3 * KEPT_FOR_A_CLIENT)))
        await job.happen(JobCancelled(at=jobs.AT))
        expected = [str(revision) for revision in range(2, 3 * KEPT_FOR_A_CLIENT + 2)]
        assert [event.id async for event in events] == [event.id async for event in others] == expected


async def test_a_client_that_does_not_read_costs_no_memory_and_holds_up_nobody(
    start_gateway: StartGateway, shared_bus: Bus, storage_dir: Path, model: bytes
):
    gateway = await start_gateway()
    async with gateway.client() as client:
        job = Job((await Form().post(client, model, targets="onnx")).json()["job_id"], shared_bus, storage_dir)
        await job.happen(jobs.started(Stage.ONNX))
        _, deaf = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1)
        head = f"GET {job.path}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.issuer.token()}\r\n\r\n"
        deaf.write(head.encode())
        async with following(client, f"{job.path}/events") as events:
            await anext(events)
            process = psutil.Process(gateway.process.pid)
            before = process.memory_info().rss
            for number in range(5_000):
                await job.tell(Stage.ONNX, 1, number / 5_000, f"{number} " + "x" * 8_000)
            await job.complete(Stage.ONNX)
            await job.happen(JobCompleted(at=jobs.AT))
            assert [event async for event in events][-1].kind == "job.completed"
            assert process.memory_info().rss - before < 16 << 20, "40 MB were told"
        deaf.transport.abort()


async def test_a_gateway_that_stops_ends_its_streams_at_once(start_gateway: StartGateway, model: bytes):
    gateway = await start_gateway()
    async with gateway.client() as client:
        path = f"/api/v1/jobs/{(await Form().post(client, model)).json()['job_id']}"
        async with (
            following(client, f"{path}/events") as events,
            following(client, f"{path}/logs?follow=true") as lines,
        ):
            assert (await anext(events)).kind == "job.created"
            gateway.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                assert [event async for event in events] == []
                assert [line async for line in lines] == [], "no end: the job goes on"
                assert await gateway.process.wait() == 0


async def test_a_stream_outlives_an_outage_of_the_event_bus(shared_issuer: Issuer, tmp_path: Path, model: bytes):
    server = NatsServer(tmp_path / "nats")
    await server.start()
    async with await Bus.connect(NatsSettings(nats_url=server.url), name="test") as bus:
        await provision(bus, Tuning())
        async with (
            running(server, shared_issuer, tmp_path / "objects", tmp_path) as gateway,
            gateway.client() as client,
        ):
            job = Job((await Form().post(client, model, targets="onnx")).json()["job_id"], bus, tmp_path / "objects")
            async with following(client, f"{job.path}/events") as events:
                assert (await anext(events)).id == "1"
                await server.kill()
                answer = await client.post(f"{job.path}/cancel")
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "event_bus_unavailable")
                await server.start()
                await job.happen(jobs.started(Stage.ONNX), JobCancelled(at=jobs.AT))
                assert [event.id async for event in events] == ["2", "3"]
    await server.kill()


async def test_the_report_holds_what_each_finished_stage_found(client: httpx.AsyncClient, job: Job):
    assert (await client.get(f"{job.path}/report")).json() == {"job_id": job.job_id, "stages": {}}
    found: dict[str, Any] = {"nodes": 3, "ops": ["Conv"] * 50_000}
    await job.complete(Stage.ONNX, report=json.dumps(found).encode())
    answer = await client.get(f"{job.path}/report")
    assert answer.json() == {"job_id": job.job_id, "stages": {"onnx": found}}
    assert answer.headers["content-type"] == "application/json"
    same = await client.get(f"{job.path}/report", headers={"If-None-Match": answer.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    await job.complete(Stage.BIE, report=b'{"snr_db": 41.5}')
    more = await client.get(f"{job.path}/report", headers={"If-None-Match": answer.headers["etag"]})
    assert more.json()["stages"] == {"onnx": found, "bie": {"snr_db": 41.5}}
    head = await client.head(f"{job.path}/report")
    assert head.headers["content-length"] == more.headers["content-length"]


async def test_the_report_is_a_page_for_those_who_ask_for_one(client: httpx.AsyncClient, job: Job):
    browser = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    await job.complete(Stage.ONNX, report=msgspec.json.encode(reports.ONNX))
    page = await client.get(f"{job.path}/report", headers=browser)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["content-security-policy"] == POLICY
    assert page.headers["vary"] == "Accept"
    assert "CPU, unless rewritten" in page.text
    same = await client.get(f"{job.path}/report", headers=browser | {"If-None-Match": page.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    several = await client.get(f"{job.path}/report", headers=[("Accept", "image/png"), ("Accept", "text/html")])
    assert several.headers["etag"] == page.headers["etag"]
    for accept in ("*/*", "application/json", "image/png", ";;;"):
        plain = await client.get(f"{job.path}/report", headers={"Accept": accept})
        assert plain.headers["content-type"] == "application/json"
        assert (plain.headers["vary"], plain.headers["etag"] == page.headers["etag"]) == ("Accept", False)
    await job.complete(Stage.BIE, report=b'{"written": "by another release"}')
    page = await client.get(f"{job.path}/report", headers=browser)
    assert page.headers["etag"] != same.headers["etag"]
    assert "The report of the stage bie is not shown: it was written by another release." in page.text


async def test_a_report_that_is_too_large_for_a_page_is_left_to_json(client: httpx.AsyncClient, job: Job):
    await job.complete(Stage.ONNX, report=msgspec.json.encode({"names": "x" * MOST_BYTES_ON_A_PAGE}))
    page = await client.get(f"{job.path}/report", headers={"Accept": "text/html"})
    assert "The report of the stage onnx is not shown: it has 41" in page.text
    assert len(page.content) < 20_000


async def test_the_log_is_the_stored_one_of_finished_stages_and_what_is_known_of_the_running_one(
    client: httpx.AsyncClient, job: Job
):
    assert (await client.get(f"{job.path}/logs")).text == ""
    await job.write(Stage.ONNX, 1, "told while it ran")
    await job.complete(Stage.ONNX, log="über\nall of it\n".encode())
    await job.happen(jobs.started(Stage.BIE))
    await job.write(Stage.BIE, 1, "line 1")
    await job.garble(Stage.BIE)
    await job.write(Stage.BIE, 1, "line 2")
    await job.write(Stage.BIE, 2, "of another attempt")
    whole = await client.get(f"{job.path}/logs")
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"
    assert whole.text == "==> onnx <==\nüber\nall of it\n\n==> bie <==\nline 1\nline 2\n"
    assert (await client.get(f"{job.path}/logs?stage=bie")).text == "line 1\nline 2\n"
    assert (await client.get(f"{job.path}/logs?stage=nef")).text == ""
    bad = await client.get(f"{job.path}/logs?stage=zip&follow=perhaps&more=1")
    assert {field["field"] for field in bad.json()["error"]["details"]["fields"]} == {"stage", "follow", "more"}


async def test_a_followed_log_gives_each_line_once_and_ends_with_the_job(client: httpx.AsyncClient, job: Job):
    await job.complete(Stage.ONNX, log=b"stored 1\nstored 2")
    async with following(client, f"{job.path}/logs?follow=true") as events:
        assert [(await anext(events)).data["line"] for _ in range(2)] == ["stored 1", "stored 2"]
        await job.happen(jobs.started(Stage.BIE))
        await job.write(Stage.BIE, 1, "live 1")
        assert await anext(events) == (
            None,
            "log",
            {"stage": "bie", "attempt": 1, "at": jobs.AT, "line": "live 1"},
        )
        await job.garble(Stage.BIE)
        await job.write(Stage.BIE, 1, "live 2")
        stored = await job.stored("bie/1/log", b"live 1\nlive 2\n")
        await job.happen(replace(jobs.completed(Stage.BIE), log=stored), JobCompleted(at=jobs.AT))
        last = [event async for event in events]
    assert [(event.kind, event.data.get("line", event.data.get("status"))) for event in last] == [
        ("log", "live 2"),
        ("end", "completed"),
    ]


async def test_who_follows_a_log_again_gets_all_of_it_again_and_the_document_promises_nothing_else(
    client: httpx.AsyncClient, job: Job
):
    await job.complete(Stage.ONNX, log=b"stored 1\nstored 2")
    await job.happen(JobCancelled(at=jobs.AT))
    path = f"{job.path}/logs?follow=true"
    first = await everything(client, path)
    assert [event.kind for event in first] == ["log", "log", "end"]
    assert await everything(client, path, **{"Last-Event-ID": "2"}) == first
    described = (await client.get("/openapi")).json()["paths"]["/api/v1/jobs/{job_id}/logs"]["get"]
    assert [status for status in described["responses"] if status.startswith("2")] == ["200"]
    assert "anew" in described["description"]


async def test_a_job_that_is_deleted_ends_its_followers(client: httpx.AsyncClient, job: Job):
    async with following(client, f"{job.path}/logs?follow=true") as events:
        await job.write(Stage.ONNX, 1, "a line")
        assert (await anext(events)).data["line"] == "a line"
        await client.delete(job.path)
        await client.delete(job.path)
        assert [event.kind for event in [event async for event in events]] in ([], ["end"])


async def test_a_stream_ends_with_the_token_that_opened_it_and_says_so(gateway: GatewayProcess, model: bytes):
    async with gateway.client() as client:
        path = f"/api/v1/jobs/{(await Form().post(client, model)).json()['job_id']}"
    async with gateway.client(exp=int(time.time()) - 52) as expiring:
        streams = (f"{path}/events", f"{path}/logs?follow=true")
        for seen in await asyncio.gather(*(everything(expiring, stream) for stream in streams)):
            assert seen[-1] == (None, "end", {"reason": "token_expired"})
        refused = await expiring.get(f"{path}/events")
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "token_expired")


async def test_a_client_has_so_many_streams_open_and_no_more(start_gateway: StartGateway, model: bytes):
    gateway = await start_gateway(MAX_STREAMS_PER_CLIENT="2")
    async with gateway.client() as client, gateway.client(client_id="other") as other:
        path = f"/api/v1/jobs/{(await Form().post(client, model)).json()['job_id']}"
        theirs = f"/api/v1/jobs/{(await Form().post(other, model)).json()['job_id']}"
        async with following(client, f"{path}/events") as events:
            await anext(events)
            async with following(client, f"{path}/logs?follow=true"):
                for stream in ("events", "logs?follow=true"):
                    answer = await client.get(f"{path}/{stream}")
                    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "service_busy")
                    assert answer.headers["retry-after"] == "5"
                assert (await client.get(f"{path}/logs")).status_code == 200
                async with following(other, f"{theirs}/events") as others:
                    assert (await anext(others)).kind == "job.created"

        async def free() -> bool:
            async with client.stream("GET", f"{path}/events") as answer:
                return answer.status_code == 200

        await eventually(free)
