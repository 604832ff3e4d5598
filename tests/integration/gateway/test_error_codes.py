"""Every error code, answered by the real gateway: its status, the envelope, the request id and the hint."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import jobs
import pytest
from waiting import eventually

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.identifiers import uuid7
from converter.contracts.job import STAGES, Stage
from converter.devstack.nats_server import NatsServer
from converter.gateway.http.errors import ERRORS

from .conftest import Form, GatewayProcess, Issuer, StartGateway, becomes, function_fixture, module_fixture, running

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
}
HEADERS = {401: "www-authenticate", 403: "www-authenticate", 405: "allow", 416: "content-range", 429: "retry-after"}
"""What an answer with this status always carries besides."""
REQUEST_ID = "the-request-of-the-test"
NEVER_READ = "headers_too_large"
"""Refused before the request's own id is known."""
TENANT = "kneron"
RATE_LIMIT = 20
SILENCE_S = 10.6
TUS = {"Tus-Resumable": "1.0.0"}
BYTES = TUS | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}


class World(NamedTuple):
    """What a recipe may use."""

    gateway: GatewayProcess
    strict: GatewayProcess
    start: StartGateway
    issuer: Issuer
    bus: Bus
    model: bytes
    stored: Callable[[], list[str]]
    directory: Path
    slow: asyncio.Task[httpx.Response]

    @asynccontextmanager
    async def client(self, gateway: GatewayProcess | None = None, **claims: object) -> AsyncIterator[httpx.AsyncClient]:
        async with (gateway or self.gateway).client(**claims) as client:
            client.headers["X-Request-Id"] = REQUEST_ID
            yield client

    async def posted(self, client: httpx.AsyncClient, **fields: object) -> str:
        """The path of a new job."""
        answer = await Form().post(client, self.model, **fields)
        assert answer.status_code == 201, answer.text
        return str(answer.headers["location"])

    async def completed(self, client: httpx.AsyncClient, last: Stage = Stage.ONNX) -> str:
        """The path of a job that has ended well, without a stored object behind its artifacts."""
        path = await self.posted(client, targets=last.value)
        for stage in STAGES[: STAGES.index(last) + 1]:
            for fact in (jobs.started(stage), jobs.completed(stage)):
                await JobLog(self.bus, "test").append(path.rpartition("/")[2], lambda _, fact=fact: fact)  # type: ignore[misc]  # mypy does not infer the default
        return path

    async def link(self, client: httpx.AsyncClient) -> str:
        path = await self.completed(client)
        return str((await client.post(f"{path}/download-tokens")).json()["url"])

    @asynccontextmanager
    async def stalled(self, client: httpx.AsyncClient, **headers: str) -> AsyncIterator[None]:
        """While it lasts, a form of this client is stuck in the middle of its model."""
        fields = "".join(
            f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in Form().fields().items()
        )
        file = '--b\r\nContent-Disposition: form-data; name="model"; filename="m.onnx"\r\n\r\n'

        async def body() -> AsyncIterator[bytes]:
            yield (fields + file).encode() + self.model[:50_000]
            await asyncio.Event().wait()

        headers = {"Content-Type": "multipart/form-data; boundary=b", **headers}
        before = self.stored()
        unfinished = asyncio.create_task(client.post("/api/v1/jobs", content=body(), headers=headers))
        await becomes(lambda: self.stored() != before)
        yield
        unfinished.cancel()
        await asyncio.gather(unfinished, return_exceptions=True)


Recipe = Callable[[World], Awaitable[httpx.Response]]
RECIPES: dict[str, Recipe] = {}


def recipe(make: Recipe) -> Recipe:
    """The function is named for the code that it provokes."""
    RECIPES[make.__name__] = make
    return make


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

    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(SILENCE_S)  # the client's own slowness, past what the gateway forgives
        yield b" "
        await asyncio.Event().wait()

    async with gateway.client(client_id="slow") as client:
        path = f"/api/v1/jobs/{uuid7()}/promote"
        headers = {"Content-Type": "application/json", "X-Request-Id": REQUEST_ID}
        task = asyncio.create_task(client.post(path, content=body(), headers=headers))
        yield task
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@function_fixture
async def world(
    gateway: GatewayProcess,
    strict: GatewayProcess,
    start_gateway: StartGateway,
    issuer: Issuer,
    shared_bus: Bus,
    model: bytes,
    stored: Callable[[], list[str]],
    tmp_path: Path,
    slow: asyncio.Task[httpx.Response],
) -> World:
    return World(gateway, strict, start_gateway, issuer, shared_bus, model, stored, tmp_path, slow)


@recipe
async def validation_error(world: World) -> httpx.Response:
    async with world.client() as client:
        return await client.get("/api/v1/jobs")


@recipe
async def invalid_multipart(world: World) -> httpx.Response:
    async with world.client() as client:
        return await client.post("/api/v1/jobs", files={"model": ("m.txt", b"no model")})


@recipe
async def digest_mismatch(world: World) -> httpx.Response:
    async with world.client() as client:
        return await Form().post(client, world.model, model_sha256="0" * 64)


@recipe
async def invalid_token(world: World) -> httpx.Response:
    async with world.client(aud="another") as client:
        return await client.get("/api/v1/jobs")


@recipe
async def token_expired(world: World) -> httpx.Response:
    async with world.client(exp=1) as client:
        return await client.get("/api/v1/jobs")


@recipe
async def insufficient_scope(world: World) -> httpx.Response:
    async with world.client(scope="converter:job.write") as client:
        return await client.get("/api/v1/jobs")


@recipe
async def tenant_mismatch(world: World) -> httpx.Response:
    async with world.client(world.strict, client_id="stranger", tenant_id="another") as client:
        return await client.get("/api/v1/jobs")


@recipe
async def job_not_found(world: World) -> httpx.Response:
    async with world.client() as client:
        return await client.get(f"/api/v1/jobs/{uuid7()}")


@recipe
async def upload_not_found(world: World) -> httpx.Response:
    async with world.client() as client:
        return await client.get(f"/api/v1/uploads/{uuid7()}", headers=TUS)


@recipe
async def not_found(world: World) -> httpx.Response:
    async with world.client() as client:
        return await client.get("/api/v1/nothing")


@recipe
async def method_not_allowed(world: World) -> httpx.Response:
    async with world.client() as client:
        return await client.put("/api/v1/jobs")


@recipe
async def user_has_active_job(world: World) -> httpx.Response:
    form = Form()
    async with world.client() as client:
        await form.post(client, world.model)
        return await form.post(client, world.model)


@recipe
async def job_not_ready_for_promote(world: World) -> httpx.Response:
    async with world.client() as client:
        return await client.post(f"{await world.posted(client)}/promote", json={"target_object_key": "a"})


@recipe
async def source_not_available(world: World) -> httpx.Response:
    async with world.client() as client:
        return await client.post(f"{await world.posted(client)}/download-tokens")


@recipe
async def promotion_in_progress(world: World) -> httpx.Response:
    async with world.client() as client:
        path = f"{await world.completed(client, Stage.BIE)}/promote"
        order = {"source": "onnx", "target_object_key": "a"}
        first = await client.post(path, json=order, headers={"Prefer": "respond-async"})
        assert first.status_code == 202
        return await client.post(path, json=order | {"source": "bie"})


@recipe
async def job_not_active(world: World) -> httpx.Response:
    async with world.client() as client:
        path = f"{await world.posted(client)}/cancel"
        await client.post(path)
        return await client.post(path)


@recipe
async def idempotency_in_progress(world: World) -> httpx.Response:
    key = {"Idempotency-Key": uuid7()}
    async with world.client() as client, world.stalled(client, **key):
        client.headers.update(key)
        return await Form().post(client, world.model)


@recipe
async def idempotency_mismatch(world: World) -> httpx.Response:
    form = Form()
    async with world.client() as client:
        client.headers["Idempotency-Key"] = uuid7()
        await form.post(client, world.model)
        return await form.post(client, world.model, version="0002")


@recipe
async def upload_offset_mismatch(world: World) -> httpx.Response:
    async with world.client() as client:
        begun = await client.post("/api/v1/uploads", headers=TUS | {"Upload-Length": "10"})
        return await client.patch(begun.headers["location"], content=b"x", headers=BYTES | {"Upload-Offset": "5"})


@recipe
async def checksum_mismatch(world: World) -> httpx.Response:
    async with world.client() as client:
        begun = await client.post("/api/v1/uploads", headers=TUS | {"Upload-Length": "10"})
        wrong = BYTES | {"Upload-Checksum": "sha256 AAAA"}
        return await client.patch(begun.headers["location"], content=b"x", headers=wrong)


@recipe
async def link_expired(world: World) -> httpx.Response:
    async with world.client(world.strict, client_id="late", tenant_id=TENANT) as client:
        url = await world.link(client)

        async def expired() -> httpx.Response | None:
            answer = await client.get(url)
            return answer if answer.status_code == 410 else None

        return await eventually(expired)


@recipe
async def precondition_failed(world: World) -> httpx.Response:
    async with world.client() as client:
        return await client.delete(await world.posted(client), headers={"If-Match": '"another"'})


@recipe
async def file_too_large(world: World) -> httpx.Response:
    async with world.client() as client:
        return await client.post("/api/v1/uploads", headers=TUS | {"Upload-Length": str(10**12)})


@recipe
async def unsupported_media_type(world: World) -> httpx.Response:
    async with world.client() as client:
        return await client.post(f"{await world.completed(client)}/promote", data={"target_object_key": "a"})


@recipe
async def range_not_satisfiable(world: World) -> httpx.Response:
    async with world.client() as client:
        return await client.get(await world.link(client), headers={"Range": f"bytes={10**12}-"})


@recipe
async def request_timeout(world: World) -> httpx.Response:
    return await asyncio.shield(world.slow)


@recipe
async def invalid_object_key(world: World) -> httpx.Response:
    async with world.client() as client:
        return await client.post(f"{await world.completed(client)}/promote", json={"target_object_key": "../a"})


@recipe
async def rate_limit_exceeded(world: World) -> httpx.Response:
    async with world.client(world.strict, client_id="eager", tenant_id=TENANT) as client:
        answers = [await client.get("/api/v1/jobs") for _ in range(RATE_LIMIT + 1)]
        return answers[-1]


@recipe
async def headers_too_large(world: World) -> httpx.Response:
    async with world.client() as client:
        return await client.get("/api/v1/jobs", headers={"X-Large": "x" * 40_000})


@recipe
async def internal_error(world: World) -> httpx.Response:
    async with world.client() as client:
        return await client.get(await world.link(client))


@recipe
async def misconfiguration(world: World) -> httpx.Response:
    objects = world.directory / "objects"
    gateway = await world.start(LOCAL_STORAGE_DIR=str(objects))
    shutil.rmtree(objects)
    async with world.client(gateway) as client:
        return await Form().post(client, world.model)


@recipe
async def storage_unavailable(world: World) -> httpx.Response:
    objects = world.directory / "objects"
    gateway = await world.start(LOCAL_STORAGE_DIR=str(objects))
    shutil.rmtree(objects / ".uploads")
    (objects / ".uploads").write_bytes(b"not a directory")
    async with world.client(gateway) as client:
        return await Form().post(client, world.model)


@recipe
async def file_gateway_unavailable(world: World) -> httpx.Response:
    async with world.client(world.strict, client_id="promoting", tenant_id=TENANT) as client:
        return await client.post(f"{await world.completed(client)}/promote", json={"target_object_key": "a"})


@recipe
async def auth_service_unavailable(world: World) -> httpx.Response:
    world.issuer.status = 500
    async with world.client(await world.start()) as client:
        return await client.get("/api/v1/jobs")


@recipe
async def service_busy(world: World) -> httpx.Response:
    async with (
        world.client(world.strict, client_id="busy", tenant_id=TENANT) as client,
        world.stalled(client),
    ):
        answer = await Form().post(client, world.model)
        assert int(answer.headers["retry-after"]) > 0
        return answer


def _slowest_last() -> list[str]:
    return sorted(RECIPES, key=lambda code: code == request_timeout.__name__)


@pytest.mark.parametrize("code", _slowest_last())
async def test_the_code_is_answered_as_promised(world: World, code: str):
    answer = await RECIPES[code](world)
    row = ERRORS[code]
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"], answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (row.status, code), answer.text
    assert list(error) == ["code", "message", "details", "request_id"]
    assert error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]
    assert (error["request_id"] == REQUEST_ID) == (code != NEVER_READ)
    assert "Traceback" not in answer.text
    if row.hint:
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


@pytest.mark.parametrize("code", sorted(PROVEN_ELSEWHERE))
async def test_a_proof_elsewhere_is_there(code: str):
    module, _, name = PROVEN_ELSEWHERE[code].partition("::")
    source = (Path(__file__).parent / module).read_text()
    found = re.search(rf"^async def {name}\(.*?(?=^\S|\Z)", source, re.MULTILINE | re.DOTALL)
    assert found is not None
    assert f'"{code}"' in source[found.start() :]
