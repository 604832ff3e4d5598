"""A file store, and the issuer of its tokens, that fail in whatever way a test asks for."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec import Struct

from converter.common.oauth import TokenSource, token_source
from converter.common.settings import OAuthClientSettings, Secret
from converter.common.storage import ArtifactStore, open_local
from converter.contracts.job import Artifact, timestamp
from converter.promoter.file_store import SCOPE, FileStore, open_file_store
from converter.promoter.upload import Upload

AUDIENCE = "file-access-agent"
CLIENT = ("converter", "s3cret")
PAUSES_S = (0.01, 0.02, 0.03, 0.04, 0.05)
BUFFER_BYTES = 64 << 10
KEY = "models/alice/yolo.nef"
PATH = f"/files/{KEY}"


class Exchange:
    """One request, its body not yet read, and the way to answer it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.method = self.path = ""
        self.headers: dict[str, str] = {}

    async def begin(self) -> None:
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        self.method, self.path, _ = first.split(" ")
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    async def body(self) -> bytes:
        return await self._reader.readexactly(int(self.headers["content-length"]))

    async def some(self, size_bytes: int) -> bytes:
        return await self._reader.read(size_bytes)

    async def answer(self, status: int, content: bytes = b"", *fields: str) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}", "Connection: close", *fields, "", ""]
        self._writer.write("\r\n".join(lines).encode() + content)
        await self._writer.drain()

    def reset(self) -> None:
        """End the connection as a crashed server's machine does."""
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Fault = Callable[[Exchange], Awaitable[None]]


class Company:
    """`files` by raw path; each upload takes the next of `faults`, or is kept. `token_status` replaces tokens."""

    def __init__(self) -> None:
        self.url = ""
        self.files: dict[str, bytes] = {}
        self.uploads: list[Exchange] = []
        self.faults: deque[Fault] = deque()
        self.tokens: list[str] = []
        self.token_status: deque[int] = deque()
        self.kept = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        exchange = Exchange(reader, writer)
        try:
            await exchange.begin()
            if exchange.path == "/token":
                await self._token(exchange)
            else:
                self.uploads.append(exchange)
                await (self.faults.popleft() if self.faults else self.keep)(exchange)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _token(self, exchange: Exchange) -> None:
        await exchange.body()
        assert base64.b64decode(exchange.headers["authorization"].removeprefix("Basic ")).decode() == ":".join(CLIENT)
        if self.token_status:
            await exchange.answer(self.token_status.popleft())
            return
        self.tokens.append(f"token-{len(self.tokens) + 1}")
        answer = {"access_token": self.tokens[-1], "token_type": "Bearer", "expires_in": 3600}
        await exchange.answer(200, json.dumps(answer).encode())

    async def keep(self, exchange: Exchange) -> None:
        assert exchange.method == "PUT"
        self.files[exchange.path] = await exchange.body()
        self.kept += 1
        await exchange.answer(201)

    async def keep_and_lose_the_answer(self, exchange: Exchange) -> None:
        self.files[exchange.path] = await exchange.body()
        self.kept += 1
        exchange.reset()


def answering(status: int) -> Fault:
    async def fault(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.answer(status)

    return fault


def refusing_early(status: int) -> Fault:
    """The answer comes before the body is read, and the connection is reset."""

    async def fault(exchange: Exchange) -> None:
        await exchange.answer(status)

    return fault


async def reset_mid_body(exchange: Exchange) -> None:
    await exchange.some(1 << 20)
    exchange.reset()


async def no_more(exchange: Exchange) -> None:
    await exchange.some(1 << 16)
    await asyncio.Event().wait()


async def no_answer(exchange: Exchange) -> None:
    await exchange.body()
    await asyncio.Event().wait()


@pytest.fixture
async def company() -> AsyncIterator[Company]:
    company = Company()
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())
        with contextlib.suppress(asyncio.CancelledError):
            await company.serve(reader, writer)

    listener = socket.create_server(("127.0.0.1", 0))
    # A sender soon feels that nobody reads, so that artifacts of some megabytes are large.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    server = await asyncio.start_server(serve, sock=listener, limit=BUFFER_BYTES)
    company.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with server:
        yield company
        for connection in connections:
            connection.cancel()
        assert set(await asyncio.gather(*connections)) <= {None}


def tokens_of(company: Company) -> AbstractAsyncContextManager[TokenSource]:
    settings = OAuthClientSettings(
        member_center_token_url=f"{company.url}/token",
        kneron_converter_client_id=CLIENT[0],
        kneron_converter_client_secret=Secret(CLIENT[1]),
        file_access_agent_audience=AUDIENCE,
    )
    return token_source(settings, scope=SCOPE)


@pytest.fixture
async def file_store(company: Company) -> AsyncIterator[FileStore]:
    async with tokens_of(company) as tokens, open_file_store(company.url, tokens, retry_pauses_s=PAUSES_S) as opened:
        yield opened


@pytest.fixture
async def impatient(company: Company) -> AsyncIterator[FileStore]:
    """Takes a store for stuck after a quarter of a second."""
    async with (
        tokens_of(company) as tokens,
        open_file_store(company.url, tokens, patience_s=0.25, retry_pauses_s=PAUSES_S) as opened,
    ):
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_local(tmp_path / "objects")


class Made(Struct):
    """An artifact in storage, and its bytes."""

    artifact: Artifact
    content: bytes


@pytest.fixture
async def made(store: ArtifactStore) -> Made:
    """Large enough not to fit into the buffers of a connection."""
    content = os.urandom(4 << 20)
    stored = await store.put("jobs/1/nef/1/model.nef", content)
    artifact = Artifact(
        object_key=stored.object_key,
        size_bytes=stored.size_bytes,
        sha256=hashlib.sha256(content).hexdigest(),
        filename="model.nef",
        media_type="application/x-nef",
        created_at=timestamp(),
    )
    return Made(artifact, content)


async def still_wanted() -> bool:
    return True


@pytest.fixture
def upload(store: ArtifactStore, made: Made) -> Upload:
    return Upload(
        target_object_key=KEY,
        artifact=made.artifact,
        open=lambda: store.open(made.artifact.object_key),
        deadline=datetime.now(UTC) + timedelta(seconds=60),
        wanted=still_wanted,
    )
