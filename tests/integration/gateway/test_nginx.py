"""The gateway behind the virtual hosts of deploy/nginx, served by Debian's nginx."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from msgspec.structs import replace
from nginx_conf import Proxy, nginx_conf
from waiting import eventually

from converter.devstack.loopback import free_ports
from converter.devstack.process import die_with

from .conftest import Form, GatewayProcess, StartGateway, function_fixture, module_fixture

pytestmark = pytest.mark.asyncio(loop_scope="module")

UPLOAD_BYTES = 64 * 1024 * 1024
IMAGE_BYTES = 8 * 1024 * 1024
MAIN = """\
daemon off;
pid {directory}/pid;
error_log {directory}/error.log info;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/bodies;
    proxy_temp_path {directory}/answers;
    fastcgi_temp_path {directory}/unused;
    uwsgi_temp_path {directory}/unused;
    scgi_temp_path {directory}/unused;
    include {directory}/converter.conf;
}}
"""


class Nginx:
    """nginx before one gateway, until `stop`."""

    def __init__(self, directory: Path, gateway: GatewayProcess) -> None:
        public, internal = free_ports(2)
        self.proxy = Proxy(
            public_listen=f"127.0.0.1:{public}",
            internal_listen=f"127.0.0.1:{internal}",
            internal_name="localhost",
            port=gateway.port,
            internal_port=urlsplit(gateway.internal_url).port or 0,
            certificate=str(directory / "tls.crt"),
            certificate_key=str(directory / "tls.key"),
        )
        self.directory = directory
        self.url, self.internal_url = f"https://localhost:{public}", f"https://localhost:{internal}"

    async def start(self, *, body_max_bytes: int | None = None) -> None:
        limited = replace(self.proxy, multipart_model_max_bytes=body_max_bytes) if body_max_bytes else self.proxy
        await asyncio.to_thread(self._self_signed)
        (self.directory / "converter.conf").write_text(nginx_conf(limited))
        main = self.directory / "nginx.conf"
        main.write_text(MAIN.format(directory=self.directory))
        self.process = await asyncio.create_subprocess_exec(
            *("nginx", "-e", str(self.directory / "error.log"), "-c", str(main)),
            preexec_fn=partial(die_with, os.getpid()),
        )
        await eventually(self._listens)

    async def stop(self) -> None:
        self.process.terminate()
        await self.process.wait()

    def client(self, token: str | None = None) -> httpx.AsyncClient:
        trusted = ssl.create_default_context(cafile=self.proxy.certificate)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, verify=trusted, timeout=30, trust_env=False)

    def _self_signed(self) -> None:
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
                *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"),
                *("-keyout", self.proxy.certificate_key, "-out", self.proxy.certificate),
            ],
            check=True,
            capture_output=True,
        )

    async def _listens(self) -> bool:
        assert self.process.returncode is None, (self.directory / "error.log").read_text()
        try:
            async with self.client() as client:
                return (await client.get("/health/live")).is_success
        except httpx.TransportError:
            return False


@module_fixture
async def nginx(gateway: GatewayProcess, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nginx]:
    server = Nginx(tmp_path_factory.mktemp("nginx"), gateway)
    await server.start()
    yield server
    await server.stop()


@function_fixture
async def client(nginx: Nginx, gateway: GatewayProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with nginx.client(gateway.issuer.token()) as opened:
        yield opened


async def test_an_upload_passes_without_touching_the_proxys_disk(
    nginx: Nginx, client: httpx.AsyncClient, form: Form, model: bytes, image: bytes
):
    images = [("ref_images", (f"{number}.png", image + bytes(IMAGE_BYTES))) for number in range(4)]
    answer = await client.post("/api/v1/jobs", data=form.fields(), files=[("model", ("m.onnx", model)), *images])
    assert answer.status_code == 201
    assert "temporary file" not in (nginx.directory / "error.log").read_text()


async def test_an_early_refusal_arrives_while_the_body_is_still_being_sent(nginx: Nginx):
    async def body() -> AsyncIterator[bytes]:
        for _ in range(UPLOAD_BYTES // 65536):
            yield bytes(65536)

    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(UPLOAD_BYTES)}
    for _ in range(10):
        async with nginx.client() as stranger:
            answer = await stranger.post("/api/v1/jobs", content=body(), headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_token")


async def test_events_arrive_as_they_happen(client: httpx.AsyncClient, form: Form, model: bytes):
    job = (await form.post(client, model)).json()
    kinds = []
    async with client.stream("GET", f"/api/v1/jobs/{job['job_id']}/events") as events:
        async for line in events.aiter_lines():
            kind, _, data = line.partition(": ")
            if kind != "data":
                continue
            kinds.append(json.loads(data)["status"])
            if kinds == ["queued"]:  # the stream is open, and what follows can only come through it
                assert (await client.post(f"/api/v1/jobs/{job['job_id']}/cancel")).is_success
    assert kinds == ["queued", "cancelled"]


async def test_the_public_host_has_one_transport_security_header_and_no_internal_path(client: httpx.AsyncClient):
    answer = await client.get("/health")
    assert answer.headers.get_list("strict-transport-security") == ["max-age=31536000"]
    for path in ("/jobs", "/queues/stats", "/metrics", "/"):
        assert (await client.get(path)).status_code == 404


async def test_operators_reach_the_internal_face_by_its_own_host(nginx: Nginx):
    async with nginx.client() as operator:
        assert (await operator.get(f"{nginx.internal_url}/health")).status_code == 200
        assert (await operator.get(f"{nginx.internal_url}/api/v1/jobs")).status_code == 404


async def test_a_body_past_every_limit_is_refused_in_the_gateways_words(gateway: GatewayProcess, tmp_path: Path):
    server = Nginx(tmp_path, gateway)
    server.proxy = replace(server.proxy, multipart_ref_images_max_count=0)
    await server.start(body_max_bytes=1024)
    try:
        async with server.client(gateway.issuer.token()) as client:
            answer = await client.post("/api/v1/jobs", content=bytes(2 * 1024 * 1024))
        assert answer.status_code == 413
        error = answer.json()["error"]
        assert (error["code"], error["details"]["limit_bytes"]) == ("file_too_large", 1024 + 1024 * 1024)
    finally:
        await server.stop()


async def test_without_a_gateway_clients_are_told_to_come_back(start_gateway: StartGateway, tmp_path: Path):
    gateway = await start_gateway()
    server = Nginx(tmp_path, gateway)
    await server.start()
    try:
        gateway.process.send_signal(signal.SIGKILL)
        await gateway.process.wait()
        async with server.client() as client:
            answer = await client.get("/api/v1/jobs/x")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json()["error"]["code"] == "service_busy"
    finally:
        await server.stop()
