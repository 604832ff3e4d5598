"""The gateway as it runs in production, a process of its own, and an issuer whose keys and tokens a test chooses."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from waiting import eventually

from converter import devstack
from converter.common.bus import Bus
from converter.common.identifiers import uuid7
from converter.common.provision import provision
from converter.common.settings import NatsSettings
from converter.common.topology import Tuning
from converter.devstack import process as programs
from converter.devstack.nats_server import NatsServer
from converter.devstack.process import Process
from converter.devstack.seaweedfs import SeaweedFs

from .documented import documented

AUDIENCE = "kneron-converter"
START_TIMEOUT_S = 60.0
KINDS: dict[str, Callable[[str], Key]] = {
    "RS256": lambda kid: RSAKey.generate_key(2048, {"kid": kid, "use": "sig"}),
    "PS256": lambda kid: RSAKey.generate_key(2048, {"kid": kid, "use": "sig"}),
    "ES256": lambda kid: ECKey.generate_key("P-256", {"kid": kid, "use": "sig"}),
    "EdDSA": lambda kid: OKPKey.generate_key("Ed25519", {"kid": kid, "use": "sig"}),
}


class Issuer:
    """Serves a key set over HTTP and signs whatever a test wants signed."""

    def __init__(self) -> None:
        self.key = KINDS["RS256"]("main")
        self.published: list[dict[str, Any]] = [self.key.as_dict(private=False)]
        self.status = 200
        self.open = asyncio.Event()
        self.open.set()
        """Cleared, it holds answers back."""
        self.fetches = 0
        self.url = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:  # only a look whether anybody listens
            writer.close()
            return
        self.fetches += 1
        body = json.dumps({"keys": self.published}).encode()
        await self.open.wait()
        writer.write(
            f"HTTP/1.1 {self.status} -\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    def claims(self, **changed: object) -> dict[str, Any]:
        """Those of a good token; a claim that is changed to `None` is left out."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "visiona",
            "client_id": "visiona",
            "scope": "converter:job.read converter:job.write",
            "iat": now,
            "exp": now + 600,
        } | changed
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, **changed: object) -> str:
        return self.signed(self.claims(**changed))

    def signed(self, claims: dict[str, Any], *, key: Key | None = None, alg: str = "RS256", **header: object) -> str:
        key = key or self.key
        head = {"alg": alg, "typ": "at+jwt", "kid": key.kid} | header
        head = {name: value for name, value in head.items() if value is not None}
        return jwt.encode(head, claims, key, algorithms=[alg], default_type=None)


class GatewayProcess:
    """`python -m converter.gateway`, and clients of it."""

    def __init__(self, process: Process, url: str, internal_url: str, issuer: Issuer) -> None:
        self.process, self.url, self.internal_url, self.issuer = process, url, internal_url, issuer
        self.port = int(url.rpartition(":")[2])

    def client(self, **claims: object) -> httpx.AsyncClient:
        """One with a token, whose every answer must be as the document says."""
        headers = {"Authorization": f"Bearer {self.issuer.token(**claims)}"}
        hooks = {"response": [documented]}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30.0, trust_env=False, event_hooks=hooks)

    def operators(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.internal_url, timeout=30.0, trust_env=False)


module_fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")
function_fixture = pytest_asyncio.fixture(loop_scope="module")
"""All on the loop of the module, on which its tests run too (`pytestmark`)."""

StartGateway = Callable[..., Awaitable[GatewayProcess]]
MakeKey = Callable[..., Key]


@module_fixture
async def nats(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsServer]:
    """A provisioned server for the tests of one module."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    await server.start()
    async with await Bus.connect(NatsSettings(nats_url=server.url), name="provisioner") as bus:
        await provision(bus, Tuning())
    yield server
    await server.kill()


@module_fixture
async def shared_bus(nats: NatsServer) -> AsyncIterator[Bus]:
    async with await Bus.connect(NatsSettings(nats_url=nats.url), name="test") as connected:
        yield connected


@module_fixture
async def shared_issuer() -> AsyncIterator[Issuer]:
    """An issuer that tests leave as it is."""
    made = Issuer()
    async with made.serving():
        yield made


@function_fixture
async def issuer() -> AsyncIterator[Issuer]:
    """An issuer that a test may change."""
    made = Issuer()
    async with made.serving():
        yield made


@pytest.fixture(scope="module")
def storage_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("objects")


@module_fixture
async def gateway(
    nats: NatsServer, shared_issuer: Issuer, storage_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    """The gateway that the tests of a module share."""
    async with running(nats, shared_issuer, storage_dir, tmp_path_factory.mktemp("gateway")) as started:
        yield started


@function_fixture
async def start_gateway(
    nats: NatsServer, issuer: Issuer, storage_dir: Path, tmp_path: Path
) -> AsyncIterator[StartGateway]:
    """Starts gateways with other variables, for one test."""
    async with AsyncExitStack() as gateways:

        async def start(**variables: str) -> GatewayProcess:
            return await gateways.enter_async_context(running(nats, issuer, storage_dir, tmp_path, **variables))

        yield start


@module_fixture
async def s3(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SeaweedFs]:
    """An S3 server for the tests of one module."""
    directory = tmp_path_factory.mktemp("s3")
    server = SeaweedFs(directory, bucket="converter", access_key="key-of-tests", secret_key="secret-of-tests")
    await server.start()
    yield server
    await server.kill()
    shutil.rmtree(directory)


def in_s3(server: SeaweedFs) -> dict[str, str]:
    """The variables of a gateway that keeps its objects there."""
    return {
        "STORAGE_BACKEND": "minio",
        "MINIO_ENDPOINT_URL": server.url,
        "MINIO_BUCKET": server.bucket,
        "MINIO_ACCESS_KEY": server.access_key,
        "MINIO_SECRET_KEY": server.secret_key,
    }


@asynccontextmanager
async def running(
    nats: NatsServer, issuer: Issuer, storage_dir: Path, directory: Path, **variables: str
) -> AsyncIterator[GatewayProcess]:
    """A gateway process; what it logs goes to `directory`."""
    environ = {
        "NATS_URL": nats.url,
        "STORAGE_BACKEND": "local",
        "LOCAL_STORAGE_DIR": str(storage_dir),
        "MEMBER_CENTER_ISSUER": issuer.url,
        "MEMBER_CENTER_JWKS_URL": f"{issuer.url}/jwks",
        "MEMBER_CENTER_TOKEN_URL": f"{issuer.url}/token",
        "KNERON_CONVERTER_AUDIENCE": AUDIENCE,
        "KNERON_CONVERTER_CLIENT_ID": "converter",
        "KNERON_CONVERTER_CLIENT_SECRET": "secret",
        "FILE_ACCESS_AGENT_BASE_URL": issuer.url,
        "FILE_ACCESS_AGENT_AUDIENCE": "files",
        "HOST": "127.0.0.1",
        "PORT": "0",
        "INTERNAL_PORT": "0",
        "RESUMABLE_UPLOADS_MAX_COUNT": "1000",  # tests leave theirs
    }
    log = directory / "gateway.log"
    if log.exists():
        log = directory / f"gateway-{uuid7()}.log"
    with log.open("wb") as output:
        process = await programs.launch(
            [sys.executable, "-m", "converter.gateway"], environ=os.environ | environ | variables, output=output
        )
    try:
        ports = await _ports(log, process)
        urls = (f"http://127.0.0.1:{ports[face]}" for face in ("public", "internal"))
        yield GatewayProcess(process, *urls, issuer)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def _ports(log: Path, process: Process) -> dict[str, int]:
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            ended, lines = process.returncode is not None, log.read_text().splitlines()
            entries = [json.loads(line) for line in lines if '"http.listening"' in line]
            if len(entries) == 2:
                return {entry["face"]: entry["port"] for entry in entries}
            assert not ended, "\n".join(lines)
            await asyncio.sleep(0.02)


@pytest.fixture
def key_of() -> MakeKey:
    """Makes signing keys by algorithm."""
    return lambda alg, kid="main": KINDS[alg](kid)


@pytest.fixture
def model() -> bytes:
    """A whole ONNX model of 99 KB."""
    return (Path(str(devstack.__file__)).parent / "demo_data" / "digits_cnn.onnx").read_bytes()


class Form:
    """The fields that a job needs, of a user of its own."""

    def __init__(self) -> None:
        self.user_id = f"user-{uuid7()}"

    def fields(self, **more: object) -> dict[str, Any]:
        return {"user_id": self.user_id, "platform": "720", "model_id": "32769", "version": "0001"} | more

    async def post(self, client: httpx.AsyncClient, model: bytes, **more: object) -> httpx.Response:
        return await client.post("/api/v1/jobs", data=self.fields(**more), files={"model": ("m.onnx", model)})


@pytest.fixture
def form() -> Form:
    return Form()


@pytest.fixture
def new_form() -> Callable[[], Form]:
    return Form


@pytest.fixture
def image() -> bytes:
    """The least that counts as a PNG by its magic number."""
    return b"\x89PNG\r\n\x1a\n" + bytes(64)


@pytest.fixture
def stored(storage_dir: Path) -> Callable[[], list[str]]:
    """Names every file in the object store that is not a probe's, unfinished ones too."""

    def names() -> list[str]:
        return sorted(
            str(path.relative_to(storage_dir))
            for path in storage_dir.rglob("*")
            if path.is_file() and "probe" not in str(path.relative_to(storage_dir))
        )

    return names


async def becomes(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds."""

    async def look() -> bool:
        return condition()

    await eventually(look)
