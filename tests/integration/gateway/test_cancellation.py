"""Ending a job: cancel while it is active, delete once it has ended, and the races in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import httpx
import jobs
import pytest
from waiting import eventually

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.identifiers import uuid7
from converter.common.lifecycle import Deleted
from converter.contracts import subjects
from converter.contracts.facts import AnyFact, JobCancelled, JobCompleted, JobDeleted, PromotionRequested
from converter.contracts.job import JobRecord, Stage, timestamp

from .conftest import Form, GatewayProcess, function_fixture

pytestmark = pytest.mark.asyncio(loop_scope="module")


@function_fixture
async def client(gateway: GatewayProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client() as opened:
        yield opened


@pytest.fixture
def job_log(shared_bus: Bus) -> JobLog:
    return JobLog(shared_bus, "test")


async def posted(client: httpx.AsyncClient, model: bytes, **fields: object) -> str:
    job_id: str = (await Form().post(client, model, **fields)).json()["job_id"]
    return job_id


async def happen(job_log: JobLog, job_id: str, *facts: AnyFact) -> None:
    for fact in facts:
        await job_log.append(job_id, lambda _, fact=fact: fact)  # type: ignore[misc]  # mypy does not infer the default


async def complete(job_log: JobLog, job_id: str) -> None:
    """Of a job with the target onnx."""
    done = JobCompleted(at=jobs.AT)
    await happen(job_log, job_id, jobs.started(Stage.ONNX), jobs.completed(Stage.ONNX), done)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.parametrize("method", ["cancel", "delete"])
async def test_an_active_job_is_cancelled_and_stays_to_be_looked_at(
    client: httpx.AsyncClient,
    job_log: JobLog,
    model: bytes,
    method: str,
    stored: Callable[[], list[str]],
    shared_bus: Bus,
):
    job_id = await posted(client, model)
    await happen(job_log, job_id, jobs.started(Stage.ONNX))
    hints: list[str] = []

    async def heard(subject: str, _payload: bytes) -> None:
        state = await job_log.read(job_id)
        assert isinstance(state, JobRecord)
        hints.append(f"{subject} {state.status}")

    async with shared_bus.hear(subjects.CANCEL, heard):
        path = f"/api/v1/jobs/{job_id}"
        answer = await (client.post(f"{path}/cancel") if method == "cancel" else client.delete(path))

        async def hinted() -> list[str]:
            return hints

        await eventually(hinted)
    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["stage"]) == ("cancelled", "onnx")
    assert hints == [f"{subjects.cancel(job_id)} cancelled"], "the hint comes once the job is cancelled"
    assert (await client.get(path)).json() == answer.json()
    assert any(job_id in name for name in stored())


async def test_a_cancelled_job_releases_its_user(client: httpx.AsyncClient, form: Form, model: bytes):
    job_id = (await form.post(client, model)).json()["job_id"]
    assert (await form.post(client, model)).status_code == 409
    await client.post(f"/api/v1/jobs/{job_id}/cancel")
    assert (await form.post(client, model)).status_code == 201


async def test_a_job_that_has_ended_cannot_be_cancelled(client: httpx.AsyncClient, job_log: JobLog, model: bytes):
    job_id = await posted(client, model, targets="onnx")
    await complete(job_log, job_id)
    answer = await client.post(f"/api/v1/jobs/{job_id}/cancel")
    assert code(answer) == (409, "job_not_active")
    assert answer.json()["error"]["details"]["job_status"] == "completed"


async def test_a_finished_job_is_deleted_with_its_objects(
    client: httpx.AsyncClient, job_log: JobLog, model: bytes, stored: Callable[[], list[str]]
):
    job_id = await posted(client, model, targets="onnx")
    await complete(job_log, job_id)
    path = f"/api/v1/jobs/{job_id}"
    answer = await client.delete(path)
    assert (answer.status_code, answer.content) == (204, b"")
    assert await job_log.read(job_id) == Deleted()
    assert not any(job_id in name for name in stored())
    for again in (client.get(path), client.delete(path), client.post(f"{path}/cancel"), client.get(f"{path}/events")):
        assert code(await again) == (404, "job_not_found")


async def test_a_delete_again_after_a_delete_that_cancelled_deletes(client: httpx.AsyncClient, model: bytes):
    path = f"/api/v1/jobs/{await posted(client, model)}"
    assert [(await client.delete(path)).status_code for _ in range(3)] == [202, 204, 404]


async def test_if_match_keeps_from_ending_another_state_than_the_client_knows(
    client: httpx.AsyncClient, job_log: JobLog, model: bytes
):
    job_id = await posted(client, model)
    path = f"/api/v1/jobs/{job_id}"
    queued = (await client.get(path)).headers["etag"]
    await happen(job_log, job_id, jobs.started(Stage.ONNX))
    for request in (
        client.delete(path, headers={"If-Match": queued}),
        client.post(f"{path}/cancel", headers={"If-Match": queued}),
        client.delete(path, headers={"If-Match": f"W/{(await client.get(path)).headers['etag']}"}),
    ):
        answer = await request
        assert code(answer) == (412, "precondition_failed")
        assert answer.headers["etag"] == (await client.get(path)).headers["etag"]
    running = (await client.get(path)).headers["etag"]
    cancelled = await client.delete(path, headers=[("If-Match", '"x"'), ("If-Match", f'"y", {running}')])
    assert cancelled.status_code == 202
    # The client that repeats a delete of which it lost the answer deletes nothing it has not seen.
    assert code(await client.delete(path, headers={"If-Match": running})) == (412, "precondition_failed")
    assert (await client.delete(path, headers={"If-Match": cancelled.headers["etag"]})).status_code == 204
    assert code(await client.delete(path, headers={"If-Match": "*"})) == (404, "job_not_found")


def promotion(deadline: datetime) -> PromotionRequested:
    return PromotionRequested(
        at=jobs.AT, promotion_id=uuid7(), source=Stage.ONNX, target_object_key="a", deadline=timestamp(deadline)
    )


async def test_a_job_with_a_pending_promotion_is_not_deleted(client: httpx.AsyncClient, job_log: JobLog, model: bytes):
    job_id = await posted(client, model, targets="onnx")
    await complete(job_log, job_id)
    await happen(job_log, job_id, promotion(datetime.now(UTC) + timedelta(minutes=1)))
    refused = await client.delete(f"/api/v1/jobs/{job_id}")
    assert code(refused) == (409, "promotion_in_progress")
    assert refused.json()["error"]["message"] == 'The artifact of onnx is on its way to "a".'
    assert refused.json()["error"]["details"]["target_object_key"] == "a"
    assert isinstance(await job_log.read(job_id), JobRecord)


async def test_a_promotion_that_nobody_closed_at_its_deadline_keeps_no_job(
    client: httpx.AsyncClient, job_log: JobLog, model: bytes
):
    job_id = await posted(client, model, targets="onnx")
    await complete(job_log, job_id)
    await happen(job_log, job_id, promotion(datetime.now(UTC) - timedelta(seconds=1)))
    assert (await client.delete(f"/api/v1/jobs/{job_id}")).status_code == 204


async def test_of_a_promotion_and_a_delete_at_once_one_wins(client: httpx.AsyncClient, job_log: JobLog, model: bytes):
    for _ in range(8):
        job_id = await posted(client, model, targets="onnx")
        await complete(job_log, job_id)
        promoted, deleted = await asyncio.gather(
            client.post(
                f"/api/v1/jobs/{job_id}/promote",
                json={"target_object_key": "a"},
                headers={"Prefer": "respond-async"},
            ),
            client.delete(f"/api/v1/jobs/{job_id}"),
        )
        assert (promoted.status_code, deleted.status_code) in {(202, 409), (404, 204)}


async def test_of_a_cancel_and_a_completion_at_once_one_wins_and_both_are_told_the_same(
    client: httpx.AsyncClient, job_log: JobLog, model: bytes
):
    for method in ("cancel", "delete") * 6:
        job_id = await posted(client, model, targets="onnx")
        await happen(job_log, job_id, jobs.started(Stage.ONNX))
        path = f"/api/v1/jobs/{job_id}"
        answer, _ = await asyncio.gather(
            client.post(f"{path}/cancel") if method == "cancel" else client.delete(path),
            asyncio.gather(happen(job_log, job_id, jobs.completed(Stage.ONNX)), return_exceptions=True),
        )
        facts = [event.fact for event in await job_log.history(job_id)]
        cancelled = any(isinstance(fact, JobCancelled) for fact in facts)
        if any(isinstance(fact, JobDeleted) for fact in facts):
            assert (method, answer.status_code) == ("delete", 204), "it had ended before it was looked at"
        elif cancelled:
            assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
        elif method == "cancel":
            assert code(answer) == (409, "job_not_active")
        else:
            assert (answer.status_code, answer.json()["status"]) == (200, "completed")


async def test_many_cancels_at_once_cancel_once(client: httpx.AsyncClient, job_log: JobLog, model: bytes):
    job_id = await posted(client, model)
    answers = await asyncio.gather(*(client.post(f"/api/v1/jobs/{job_id}/cancel") for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [202, *[409] * 9]
    facts = [event.fact for event in await job_log.history(job_id)]
    assert sum(isinstance(fact, JobCancelled) for fact in facts) == 1
