"""A part is away: the client is told which, nothing half done is left, and it works again once the part is back."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from faults import Proxy
from waiting import eventually

from converter.common.bus import Bus, BusFull
from converter.common.provision import provision
from converter.common.settings import NatsSettings
from converter.common.storage import ArtifactStore, open_s3
from converter.common.topology import Tuning
from converter.devstack.loopback import origin
from converter.devstack.nats_server import NatsServer
from converter.devstack.seaweedfs import SeaweedFs

from .conftest import Form, GatewayProcess, Issuer, function_fixture, in_s3, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

NO_ROOM = b"<Error><Code>XMinioStorageFull</Code><Message>Storage reached its minimum free drive</Message></Error>"


async def test_without_the_event_bus_every_request_says_so_and_leaves_nothing(
    shared_issuer: Issuer, tmp_path: Path, form: Form, model: bytes
):
    server = NatsServer(tmp_path / "nats")
    await server.start()
    async with await Bus.connect(NatsSettings(nats_url=server.url), name="provisioner") as bus:
        await provision(bus, Tuning())
    objects = tmp_path / "objects"
    async with running(server, shared_issuer, objects, tmp_path) as gateway, gateway.client() as client:
        job = (await form.post(client, model)).json()
        await server.kill()
        for answer in await asyncio.gather(
            form.post(client, model),
            client.get(f"/api/v1/jobs/{job['job_id']}"),
            client.get("/api/v1/jobs", params={"user_id": form.user_id}),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "event_bus_unavailable")
        assert [path.name for path in (objects / "jobs").iterdir()] == [job["job_id"]]
        await server.start()

        async def back() -> bool:
            return (await client.get(f"/api/v1/jobs/{job['job_id']}")).status_code == 200

        await eventually(back)
    await server.kill()


async def fill(bus: Bus, subject: str) -> None:
    while True:
        await bus.store(subject, bytes(20_000))


async def test_a_full_event_log_is_told_as_that_and_the_same_request_is_taken_when_there_is_room(
    shared_issuer: Issuer, tmp_path: Path, form: Form, model: bytes
):
    server, objects = NatsServer(tmp_path / "nats"), tmp_path / "objects"
    await server.start()
    async with await Bus.connect(NatsSettings(nats_url=server.url), name="provisioner") as bus:
        await provision(bus, Tuning(events_max_bytes=1 << 20))
        async with running(server, shared_issuer, objects, tmp_path) as gateway, gateway.client() as client:
            active = (await Form().post(client, model)).json()
            client.headers["Idempotency-Key"] = "the-same"
            with pytest.raises(BusFull):
                await fill(bus, f"converter.v1.{active['job_id']}.stage.started.nef")
            answer = await form.post(client, model)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (507, "event_bus_full")
            assert "operator" in error["details"]["hint"]
            assert [path.name for path in (objects / "jobs").iterdir()] == [active["job_id"]]
            assert (await client.get("/health/ready")).status_code == 200

            await provision(bus, Tuning())
            assert (await form.post(client, model)).status_code == 201
    await server.kill()


@function_fixture
async def over_s3(
    nats: NatsServer, shared_issuer: Issuer, tmp_path: Path, s3: SeaweedFs
) -> AsyncIterator[GatewayProcess]:
    variables = in_s3(s3) | {"SHUTDOWN_GRACE_SECONDS": "1"}
    async with running(nats, shared_issuer, tmp_path, tmp_path, **variables) as gateway:
        yield gateway


@function_fixture
async def store(s3: SeaweedFs) -> AsyncIterator[ArtifactStore]:
    async with open_s3(s3.url, s3.bucket, access_key=s3.access_key, secret_key=s3.secret_key) as opened:
        yield opened


async def unfinished_upload(gateway: GatewayProcess, store: ArtifactStore) -> asyncio.StreamWriter:
    """A connection that has sent the half of its model, of which S3 holds parts."""
    head = (
        f"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.issuer.token()}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000000\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="model"; filename="m.onnx"\r\n\r\n'
    )
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    # A documentation string of 64 MB, which is a field that a model may have.
    writer.write(head.encode() + b"\x32\x80\x80\x80\x20" + bytes(24 * 1024 * 1024))

    async def open_uploads() -> list[str]:
        return [upload.object_key async for upload in store.open_uploads()]

    await eventually(open_uploads)
    return writer


async def clean(store: ArtifactStore) -> bool:
    objects = [info.object_key async for info in store.list("jobs/")]
    return not objects and not [upload async for upload in store.open_uploads()]


async def test_over_s3_a_client_that_vanishes_leaves_nothing(over_s3: GatewayProcess, store: ArtifactStore):
    writer = await unfinished_upload(over_s3, store)
    writer.transport.abort()
    await eventually(lambda: clean(store))


async def test_over_s3_a_gateway_that_stops_leaves_nothing(over_s3: GatewayProcess, store: ArtifactStore):
    writer = await unfinished_upload(over_s3, store)
    over_s3.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(20):
        assert await over_s3.process.wait() == 0
    assert await clean(store)
    writer.close()


async def test_a_storage_without_room_is_told_as_that_and_takes_the_next_job_when_it_has_some(
    nats: NatsServer, shared_issuer: Issuer, tmp_path: Path, s3: SeaweedFs, form: Form, model: bytes
):
    async with Proxy(s3.port) as way:
        variables = in_s3(s3) | {"MINIO_ENDPOINT_URL": origin(way.port)}
        async with running(nats, shared_issuer, tmp_path, tmp_path, **variables) as gateway, gateway.client() as client:
            way.refusal = (
                b"HTTP/1.1 507 Insufficient Storage\r\nContent-Type: application/xml\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(NO_ROOM), NO_ROOM)
            )
            way.cut()
            answer = await form.post(client, model)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (507, "storage_full")
            assert "operator" in error["details"]["hint"]

            way.refusal = b""
            assert (await form.post(client, model)).status_code == 201


async def test_over_s3_a_job_is_stored_and_an_outage_is_a_502(
    over_s3: GatewayProcess, s3: SeaweedFs, store: ArtifactStore, form: Form, model: bytes
):
    async with over_s3.client() as client:
        job = (await form.post(client, model)).json()
        assert (await store.stat(f"jobs/{job['job_id']}/input/model.onnx")).size_bytes == len(model)
        await s3.kill()
        answer = await Form().post(client, model)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "storage_unavailable")
