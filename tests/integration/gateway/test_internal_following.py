"""A job as the page follows it: one stream of its state, its progress and its log."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import jobs
import pytest

from converter.common.bus import Bus
from converter.contracts.facts import JobCancelled, JobCompleted, JobDeleted
from converter.contracts.job import Stage
from converter.gateway.representation import no_worker

from .conftest import Form, GatewayProcess, StartGateway, function_fixture
from .test_following import Job, Seen, everything, following

pytestmark = pytest.mark.asyncio(loop_scope="module")


@function_fixture
async def operators(gateway: GatewayProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.operators() as opened:
        yield opened


@function_fixture
async def job(gateway: GatewayProcess, shared_bus: Bus, storage_dir: Path, model: bytes) -> Job:
    """A client's, up to the ONNX stage."""
    async with gateway.client() as client:
        posted = await Form().post(client, model, targets="onnx")
    return Job(posted.json()["job_id"], shared_bus, storage_dir)


def path(job: Job) -> str:
    return f"/jobs/{job.job_id}/events"


def said(seen: list[Seen]) -> list[tuple[str, str]]:
    """The state or the line of each."""
    return [(event.kind, event.data.get("line") or event.data.get("v1_status")) for event in seen]


async def test_state_progress_and_lines_come_in_one_stream_that_ends_with_the_job(
    operators: httpx.AsyncClient, job: Job
):
    async with following(operators, path(job)) as events:
        first = await anext(events)
        shown = (await operators.get(f"/jobs/{job.job_id}")).json()
        # Its place is looked up at most once a second, so the stream may have been told before the job had one.
        assert first == ("1.0", "status", shown | {"queue_position": first.data["queue_position"]})
        assert first.data["warnings"] == [no_worker(Stage.ONNX)]
        await job.happen(jobs.started(Stage.ONNX))
        second = await anext(events)
        assert (second.id, second.data["status"], second.data["v1_status"]) == ("2.0", "ONNX", "running")
        await job.tell(Stage.ONNX, 1, 0.5, "optimising")
        told = await anext(events)
        assert (told.id, told.kind, told.data["fraction"]) == (None, "progress", 0.5)
        await job.write(Stage.ONNX, 1, "a line")
        line = await anext(events)
        assert (line.kind, line.data) == ("log", {"stage": "onnx", "attempt": 1, "at": jobs.AT, "line": "a line"})
        await job.garble(Stage.ONNX)
        await job.write(Stage.ONNX, 1, "the last line")
        await job.happen(jobs.completed(Stage.ONNX), JobCompleted(at=jobs.AT))
        rest = [event async for event in events]
    assert rest[-1].data == (await operators.get(f"/jobs/{job.job_id}")).json()
    assert [event.kind for event in rest].count("log") == 1
    assert said(rest)[-1] == ("status", "completed")
    assert ("log", "the last line") in said(rest)


async def test_who_comes_back_is_told_nothing_twice(operators: httpx.AsyncClient, job: Job):
    await job.happen(jobs.started(Stage.ONNX))
    for line in ("one", "two"):
        await job.write(Stage.ONNX, 1, line)
    seen: list[Seen] = []
    async with following(operators, path(job)) as events:
        while len(seen) < 3:
            seen.append(await anext(events))
    assert said(seen) == [("status", "queued"), ("status", "running"), ("log", "one")]
    await job.write(Stage.ONNX, 1, "three")
    await job.happen(JobCancelled(at=jobs.AT))
    rest = await everything(operators, path(job), **{"Last-Event-ID": seen[-1].id or ""})
    assert said(rest) == [("log", "two"), ("log", "three"), ("status", "cancelled")]
    done = await operators.get(path(job), headers={"Last-Event-ID": rest[-1].id or ""})
    assert (done.status_code, done.content) == (204, b"")
    by_revision = await everything(operators, path(job), **{"Last-Event-ID": "2"})
    assert said(by_revision) == [("log", "one"), *said(rest)]


async def test_a_deleted_job_ends_the_stream_with_a_word(operators: httpx.AsyncClient, job: Job):
    await job.happen(jobs.started(Stage.ONNX), jobs.completed(Stage.ONNX))
    async with following(operators, path(job)) as events:
        assert [(await anext(events)).kind for _ in range(3)] == ["status"] * 3
        await job.happen(JobDeleted(at=jobs.AT, reason="requested"))
        rest = [event async for event in events]
    assert [(event.kind, event.data) for event in rest] == [("deleted", {"job_id": job.job_id, "reason": "requested"})]


@pytest.mark.parametrize("given", ["x", "1.", "1.2.3", "-1", "1; drop"])
async def test_a_bad_last_event_id_is_refused(operators: httpx.AsyncClient, job: Job, given: str):
    answer = await operators.get(path(job), headers={"Last-Event-ID": given})
    assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")


@pytest.mark.parametrize("given", ["40", "40.0"])
async def test_the_id_of_an_event_that_the_job_has_not_had_is_refused(
    operators: httpx.AsyncClient, job: Job, given: str
):
    answer = await operators.get(path(job), headers={"Last-Event-ID": given})
    assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")
    assert "the id of an event of this job" in answer.json()["details"]["fields"][0]["message"]


async def test_a_gateway_that_stops_ends_the_stream_at_once(start_gateway: StartGateway, model: bytes):
    gateway = await start_gateway()
    async with gateway.client() as client, gateway.operators() as operators:
        job_id = (await Form().post(client, model)).json()["job_id"]
        async with following(operators, f"/jobs/{job_id}/events") as events:
            assert (await anext(events)).kind == "status"
            gateway.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                assert [event async for event in events] == []
                assert await gateway.process.wait() == 0
