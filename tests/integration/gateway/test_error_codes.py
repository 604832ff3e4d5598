"""Every error code, answered by the real gateway: its status, the envelope, the request id and the hint."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from converter.common.bus import Bus
from converter.common.identifiers import uuid7
from converter.devstack.nats_server import NatsServer
from converter.gateway.http.errors import ERRORS

from .conftest import GatewayProcess, Issuer, StartGateway, function_fixture, module_fixture, running
from .error_recipes import RATE_LIMIT, RECIPES, REQUEST_ID, TENANT, Gateways, World

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONTRACT = {
    "validation_error": 400,
    "invalid_multipart": 400,
    "digest_mismatch": 400,
    "invalid_token": 401,
    "token_expired": 401,
    "insufficient_scope": 403,
    "tenant_mismatch": 403,
    "job_not_found": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "user_has_active_job": 409,
    "job_not_ready_for_promote": 409,
    "source_not_available": 409,
    "promotion_in_progress": 409,
    "job_not_active": 409,
    "idempotency_in_progress": 409,
    "link_expired": 410,
    "precondition_failed": 412,
    "file_too_large": 413,
    "unsupported_media_type": 415,
    "range_not_satisfiable": 416,
    "invalid_object_key": 422,
    "idempotency_mismatch": 422,
    "rate_limit_exceeded": 429,
    "misconfiguration": 500,
    "internal_error": 500,
    "not_implemented": 501,
    "storage_unavailable": 502,
    "file_gateway_unavailable": 502,
    "auth_service_unavailable": 503,
    "service_busy": 503,
    "event_bus_unavailable": 503,
}
"""The statuses that callers were promised; `ERRORS` may have more codes, and may not have another status."""
UNANSWERED = {"not_implemented": "reserved for endpoints that are not there yet; there is none"}
PROVEN_ELSEWHERE = {
    "event_bus_unavailable": "test_outages.py::test_without_the_event_bus_every_request_says_so_and_leaves_nothing",
    "event_bus_full": (
        "test_outages.py::test_a_full_event_log_is_told_as_that_and_the_same_request_is_taken_when_there_is_room"
    ),
    "storage_full": (
        "test_outages.py::test_a_storage_without_room_is_told_as_that_and_takes_the_next_job_when_it_has_some"
    ),
    "cross_site_request": "test_internal_face.py::test_another_sites_page_changes_nothing",
    "inputs_lost": "test_internal_retry.py::test_a_job_whose_inputs_are_lost_leaves_nothing_of_its_repetition",
    "unknown_host": "test_internal_face.py::test_a_name_that_is_not_known_here_is_answered_nothing",
}
HEADERS = {401: "www-authenticate", 403: "www-authenticate", 405: "allow", 416: "content-range", 429: "retry-after"}
"""What an answer with this status always carries besides."""
NEVER_READ = "headers_too_large"
"""Refused before the request's own id is known."""
SILENCE_S = 10.6


@module_fixture
async def strict(
    nats: NatsServer, shared_issuer: Issuer, storage_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    """A gateway whose limits are soon reached."""
    limits = {
        "CONVERTER_TENANT_ID": TENANT,
        "API_V1_RATE_LIMIT_MAX": str(RATE_LIMIT),
        "MAX_CONCURRENT_UPLOADS": "1",
        "DOWNLOAD_LINK_TTL_S": "1",
        "PROMOTE_TIMEOUT_MS": "300",
    }
    async with running(nats, shared_issuer, storage_dir, tmp_path_factory.mktemp("strict"), **limits) as started:
        yield started


@module_fixture
async def slow(gateway: GatewayProcess) -> AsyncIterator[asyncio.Task[httpx.Response]]:
    """How a client is answered that takes too long for its next byte; it does so while the other tests run."""
    task = asyncio.create_task(_answer_to_a_slow_client(gateway))
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _answer_to_a_slow_client(gateway: GatewayProcess) -> httpx.Response:
    head = (
        f"POST /api/v1/jobs/{uuid7()}/promote HTTP/1.1\r\nHost: x\r\nX-Request-Id: {REQUEST_ID}\r\n"
        f"Authorization: Bearer {gateway.issuer.token(client_id='slow')}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        writer.write(head.encode() + b"{")
        await asyncio.sleep(SILENCE_S)  # the client's own slowness, past what the gateway forgives
        writer.write(b" ")
        answered, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    status, *fields = answered.decode().split("\r\n")
    headers = [(name, value) for name, _, value in (field.partition(": ") for field in fields)]
    return httpx.Response(int(status.split()[1]), headers=headers, content=body)


@function_fixture
async def gateways(
    gateway: GatewayProcess, strict: GatewayProcess, start_gateway: StartGateway, issuer: Issuer
) -> Gateways:
    return Gateways(gateway, strict, start_gateway, issuer)


@function_fixture
async def world(
    gateways: Gateways,
    shared_bus: Bus,
    model: bytes,
    stored: Callable[[], list[str]],
    tmp_path: Path,
    slow: asyncio.Task[httpx.Response],
) -> World:
    return World(gateways, shared_bus, model, stored, tmp_path, slow)


def _slowest_last() -> list[str]:
    return sorted(RECIPES, key=lambda code: code == "request_timeout")


@pytest.mark.parametrize("code", _slowest_last())
async def test_the_code_is_answered_as_promised(world: World, code: str):
    answer = await RECIPES[code](world)
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"], answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (ERRORS[code].status, code), answer.text
    assert list(error) == ["code", "message", "details", "request_id"]
    assert error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]
    assert (error["request_id"] == REQUEST_ID) == (code != NEVER_READ)
    assert "Traceback" not in answer.text
    assert error["details"]["hint"]
    if header := HEADERS.get(answer.status_code):
        assert answer.headers[header]


async def test_no_code_is_without_a_proof_or_a_reason():
    proofs = [*RECIPES, *PROVEN_ELSEWHERE, *UNANSWERED]
    assert len(proofs) == len(set(proofs)), "one proof each"
    assert set(proofs) == set(ERRORS) | set(CONTRACT)
    assert set(UNANSWERED).isdisjoint(ERRORS)


async def test_every_promised_code_has_its_status():
    answered = {code: ERRORS[code].status for code in CONTRACT if code not in UNANSWERED}
    assert answered == {code: status for code, status in CONTRACT.items() if code not in UNANSWERED}


async def test_every_code_of_the_table_has_a_hint():
    assert [code for code, row in ERRORS.items() if not row.hint.endswith((".", "…"))] == []


@pytest.mark.parametrize("code", sorted(PROVEN_ELSEWHERE))
async def test_a_proof_elsewhere_is_there(code: str):
    module, _, name = PROVEN_ELSEWHERE[code].partition("::")
    source = (Path(__file__).parent / module).read_text()
    found = re.search(rf"^async def {name}\(.*?(?=^\S|\Z)", source, re.MULTILINE | re.DOTALL)
    assert found is not None
    assert f'"{code}"' in source[found.start() :]
