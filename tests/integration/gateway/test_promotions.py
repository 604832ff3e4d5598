"""Promotions as a client sees them; the test stands in the promoter's place and tells how its uploads end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jobs
import pytest

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.contracts.facts import AnyFact, PromotionCompleted, PromotionFailed, PromotionRequested
from converter.contracts.job import JobRecord, Promotion, Stage, timestamp

from .conftest import Form, GatewayProcess, StartGateway, function_fixture

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Promoter:
    """Ends the promotions of one job as it is told."""

    def __init__(self, bus: Bus, job_id: str) -> None:
        self.job_id, self._log = job_id, JobLog(bus, "test")

    async def append(self, fact: AnyFact) -> None:
        await self._log.append(self.job_id, lambda _: fact)

    async def record(self) -> JobRecord:
        state = await self._log.read(self.job_id)
        assert isinstance(state, JobRecord)
        return state

    async def pending(self, count: int = 1) -> list[Promotion]:
        def pending(state: object) -> bool:
            return isinstance(state, JobRecord) and sum(p.status == "pending" for p in state.promotions) == count

        state = await self._log.wait(self.job_id, pending, 10)
        assert isinstance(state, JobRecord)
        return [promotion for promotion in state.promotions if promotion.status == "pending"]

    async def complete(self) -> None:
        for promotion in await self.pending():
            await self.append(PromotionCompleted(at=timestamp(), promotion_id=promotion.promotion_id))

    async def fail(self, code: str) -> None:
        for promotion in await self.pending():
            fact = PromotionFailed(at=timestamp(), promotion_id=promotion.promotion_id, code=code, message="it said no")
            await self.append(fact)

    async def requests(self) -> int:
        return sum(isinstance(event.fact, PromotionRequested) for event in await self._log.history(self.job_id))


@function_fixture
async def promoter(gateway: GatewayProcess, shared_bus: Bus, form: Form, model: bytes) -> Promoter:
    """Of a job that ran up to its BIE."""
    async with gateway.client() as client:
        made = Promoter(shared_bus, (await form.post(client, model, targets="bie")).json()["job_id"])
    for stage in (Stage.ONNX, Stage.BIE):
        await made.append(jobs.started(stage))
        await made.append(jobs.completed(stage))
    return made


async def promote(gateway: GatewayProcess, job_id: str, *prefer: str, **body: object) -> httpx.Response:
    async with gateway.client() as client:
        headers = [("Content-Type", "application/json"), *(("Prefer", line) for line in prefer)]
        return await client.post(f"/api/v1/jobs/{job_id}/promote", content=json.dumps(body), headers=headers)


def error(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    details: dict[str, Any] = answer.json()["error"]["details"]
    return details


async def test_a_promotion_is_answered_when_the_file_store_has_the_artifact(
    gateway: GatewayProcess, promoter: Promoter
):
    asked = asyncio.create_task(promote(gateway, promoter.job_id, target_object_key="models/a b/ü.bie"))
    (pending,) = await promoter.pending()
    assert (pending.source, pending.target_object_key) == (Stage.BIE, "models/a b/ü.bie")
    assert not asked.done()
    await promoter.complete()
    answer = await asked
    assert answer.status_code == 200
    assert answer.json()["status"] == "completed"
    assert answer.json()["promotion_id"] == pending.promotion_id
    async with gateway.client() as client:
        job = (await client.get(f"/api/v1/jobs/{promoter.job_id}")).json()
    assert [(shown["target_object_key"], shown["status"]) for shown in job["promotions"]] == [
        ("models/a b/ü.bie", "completed")
    ]


async def test_the_same_promotion_again_uploads_nothing(gateway: GatewayProcess, promoter: Promoter):
    same = [
        asyncio.create_task(promote(gateway, promoter.job_id, source="onnx", target_object_key="a")) for _ in range(3)
    ]
    await promoter.complete()
    answers = [await asked for asked in same]
    answers.append(await promote(gateway, promoter.job_id, source="onnx", target_object_key="a"))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({answer.json()["promotion_id"] for answer in answers}) == 1
    assert await promoter.requests() == 1


async def test_another_artifact_to_a_pending_key_is_refused(gateway: GatewayProcess, promoter: Promoter):
    first = await promote(gateway, promoter.job_id, "respond-async", source="onnx", target_object_key="a")
    assert first.status_code == 202
    assert first.headers["location"] == f"/api/v1/jobs/{promoter.job_id}"
    assert first.headers["preference-applied"] == "respond-async"
    assert first.json()["status"] == "pending"
    details = error(
        await promote(gateway, promoter.job_id, source="bie", target_object_key="a"), 409, "promotion_in_progress"
    )
    assert details["promotion_id"] == first.json()["promotion_id"]
    await promoter.complete()
    again = await promote(gateway, promoter.job_id, "respond-async", source="onnx", target_object_key="a")
    assert (again.status_code, again.json()["status"]) == (200, "completed")


async def test_a_preference_is_found_by_its_name_in_any_line(gateway: GatewayProcess, promoter: Promoter):
    several = await promote(gateway, promoter.job_id, "wait=5", 'a="b", Respond-Async ;c', target_object_key="a")
    assert several.status_code == 202
    await promoter.complete()
    for key, other in {"b": "x-no-respond-async-please", "c": 'a="b, respond-async"', "d": "a=respond-async"}.items():
        asked = asyncio.create_task(promote(gateway, promoter.job_id, other, target_object_key=key))
        await promoter.pending()
        await promoter.complete()
        assert (await asked).status_code == 200


@pytest.mark.parametrize(
    ("code", "status", "shown"),
    [
        ("file_gateway_unavailable", 502, "file_gateway_unavailable"),
        ("auth_service_unavailable", 503, "auth_service_unavailable"),
        ("something_newer", 502, "file_gateway_unavailable"),
    ],
)
async def test_a_failed_promotion_says_why_and_can_be_asked_for_again(
    gateway: GatewayProcess, promoter: Promoter, code: str, status: int, shown: str
):
    asked = asyncio.create_task(promote(gateway, promoter.job_id, target_object_key="a"))
    await promoter.fail(code)
    answer = await asked
    details = error(answer, status, shown)
    assert answer.json()["error"]["message"] == "it said no"
    assert ("another key" in details["hint"]) == (status == 502)
    asked = asyncio.create_task(promote(gateway, promoter.job_id, target_object_key="a"))
    await promoter.complete()
    assert (await asked).status_code == 200


async def test_past_its_deadline_a_promotion_is_closed_as_failed(start_gateway: StartGateway, promoter: Promoter):
    gateway = await start_gateway(PROMOTE_TIMEOUT_MS="300")
    error(await promote(gateway, promoter.job_id, target_object_key="a"), 502, "file_gateway_unavailable")
    (promotion,) = (await promoter.record()).promotions
    assert promotion.status == "failed"
    assert promotion.deadline <= timestamp(datetime.now(UTC) + timedelta(seconds=1))


async def test_only_what_a_completed_job_has_made_can_be_promoted(
    gateway: GatewayProcess, promoter: Promoter, new_form: Callable[[], Form], model: bytes
):
    async with gateway.client() as client:
        running = (await new_form().post(client, model)).json()["job_id"]
    details = error(await promote(gateway, running, target_object_key="a"), 409, "job_not_ready_for_promote")
    assert details["job_status"] == "queued"
    details = error(
        await promote(gateway, promoter.job_id, source="nef", target_object_key="a"), 409, "source_not_available"
    )
    assert details["available"] == ["onnx", "bie"]


@pytest.mark.parametrize("key", ["", "/a", "a/../b", "a\\b", "a//b", "a\u0000", "a" * 1025, "%2e%2e/a", "\ud800"])
async def test_a_bad_key_is_a_422(gateway: GatewayProcess, promoter: Promoter, key: str):
    details = error(await promote(gateway, promoter.job_id, target_object_key=key), 422, "invalid_object_key")
    assert details["fields"][0]["field"] == "target_object_key"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"target_object_key"}),
        ({"source": "zip", "target_object_key": 5, "more": 1}, {"source", "target_object_key", "more"}),
        ({"source": ["nef"], "target_object_key": None}, {"source", "target_object_key"}),
    ],
)
async def test_a_bad_order_names_every_field(
    gateway: GatewayProcess, promoter: Promoter, body: dict[str, Any], fields: set[str]
):
    details = error(await promote(gateway, promoter.job_id, **body), 400, "validation_error")
    assert {problem["field"] for problem in details["fields"]} == fields


async def test_a_body_that_is_no_json_object_is_refused(gateway: GatewayProcess, promoter: Promoter):
    path = f"/api/v1/jobs/{promoter.job_id}/promote"
    async with gateway.client() as client:
        for content in (b"", b"{", b"[]", b"\xff", b'"a"', b"[" * 60_000, b'{"source": NaN}'):
            answer = await client.post(path, content=content, headers={"Content-Type": "application/json"})
            error(answer, 400, "validation_error")
        answer = await client.post(path, content=b" " * 100_000, headers={"Content-Type": "application/json"})
        error(answer, 413, "file_too_large")
        error(await client.post(path, data={"target_object_key": "a"}), 415, "unsupported_media_type")
