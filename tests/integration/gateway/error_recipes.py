"""For each error code, what makes the gateway answer it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import jobs
from waiting import eventually

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.identifiers import uuid7
from converter.contracts.job import STAGES, Stage

from .conftest import Form, GatewayProcess, Issuer, StartGateway, becomes

REQUEST_ID = "the-request-of-the-test"
TENANT = "kneron"
RATE_LIMIT = 20
TUS = {"Tus-Resumable": "1.0.0"}
BYTES = TUS | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}


class Gateways(NamedTuple):
    """Those that run all the time, and how to start another with an issuer of its own."""

    usual: GatewayProcess
    strict: GatewayProcess
    start: StartGateway
    issuer: Issuer


class World(NamedTuple):
    """What a recipe may use."""

    gateways: Gateways
    bus: Bus
    model: bytes
    stored: Callable[[], list[str]]
    directory: Path
    slow: asyncio.Task[httpx.Response]

    @asynccontextmanager
    async def client(self, gateway: GatewayProcess | None = None, **claims: object) -> AsyncIterator[httpx.AsyncClient]:
        async with (gateway or self.gateways.usual).client(**claims) as client:
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
    async with world.client(world.gateways.strict, client_id="stranger", tenant_id="another") as client:
        return await client.get("/api/v1/jobs")


@recipe
async def user_assertion_invalid(world: World) -> httpx.Response:
    gateway = await world.gateways.start(USER_ASSERTION="hmac", USER_ASSERTION_SECRET="s" * 32)
    async with world.client(gateway) as client:
        return await client.get("/api/v1/jobs", params={"user_id": "alice"})


@recipe
async def user_mismatch(world: World) -> httpx.Response:
    gateway = await world.gateways.start(USER_ASSERTION="token")
    async with world.client(gateway, user_id="alice") as client:
        return await client.get("/api/v1/jobs", params={"user_id": "bob"})


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
    async with world.client(world.gateways.strict, client_id="late", tenant_id=TENANT) as client:
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
    async with world.client(world.gateways.strict, client_id="eager", tenant_id=TENANT) as client:
        answers = [await client.get("/api/v1/jobs") for _ in range(RATE_LIMIT + 1)]
        return answers[-1]


@recipe
async def headers_too_large(world: World) -> httpx.Response:
    async with world.client() as client:
        return await client.get("/api/v1/jobs", headers={"X-Large": "x" * 1_000_000})


@recipe
async def internal_error(world: World) -> httpx.Response:
    async with world.client() as client:
        return await client.get(await world.link(client))


@recipe
async def misconfiguration(world: World) -> httpx.Response:
    objects = world.directory / "objects"
    gateway = await world.gateways.start(LOCAL_STORAGE_DIR=str(objects))
    shutil.rmtree(objects)
    async with world.client(gateway) as client:
        return await Form().post(client, world.model)


@recipe
async def storage_unavailable(world: World) -> httpx.Response:
    objects = world.directory / "objects"
    gateway = await world.gateways.start(LOCAL_STORAGE_DIR=str(objects))
    shutil.rmtree(objects / ".uploads")
    (objects / ".uploads").write_bytes(b"not a directory")
    async with world.client(gateway) as client:
        return await Form().post(client, world.model)


@recipe
async def file_gateway_unavailable(world: World) -> httpx.Response:
    async with world.client(world.gateways.strict, client_id="promoting", tenant_id=TENANT) as client:
        return await client.post(f"{await world.completed(client)}/promote", json={"target_object_key": "a"})


@recipe
async def auth_service_unavailable(world: World) -> httpx.Response:
    world.gateways.issuer.status = 500
    async with world.client(await world.gateways.start()) as client:
        return await client.get("/api/v1/jobs")


@recipe
async def service_busy(world: World) -> httpx.Response:
    async with (
        world.client(world.gateways.strict, client_id="busy", tenant_id=TENANT) as client,
        world.stalled(client),
    ):
        answer = await Form().post(client, world.model)
        assert int(answer.headers["retry-after"]) > 0
        return answer
