"""An unauthorised client learns so at once, whatever it is sending, and cannot go on sending."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from .conftest import GatewayProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUNDS = int(os.environ.get("EARLY_ANSWER_ROUNDS", "20"))
BODY_BYTES = 500 * 1024 * 1024
LOOKS_LATE_BYTES = 200 * 1024 * 1024
"""For a client that looks for an answer only once it has sent everything; less, for the sake of busy machines."""
CHUNK = bytes(256 * 1024)


@pytest.fixture
def large_file(tmp_path: Path) -> Path:
    """500 MB that take no space."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(BODY_BYTES)
    return path


def body(size_bytes: int) -> Iterator[bytes]:
    for _ in range(size_bytes // len(CHUNK)):
        yield CHUNK


async def async_body() -> AsyncIterator[bytes]:
    for chunk in body(LOOKS_LATE_BYTES):
        yield chunk


async def test_curl_sees_the_401(gateway: GatewayProcess, large_file: Path):
    for _ in range(ROUNDS):
        curl = await asyncio.create_subprocess_exec(
            *("curl", "--silent", "--show-error", "--noproxy", "*", "-H", "Expect:", "-F", f"model=@{large_file}"),
            *("--write-out", "\n%{http_code} %{size_upload}", f"{gateway.url}/api/v1/jobs"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, complaint = await curl.communicate()
        envelope, _, figures = out.decode().rpartition("\n")
        status, sent_bytes = figures.split()
        assert (status, complaint) == ("401", b"")
        assert json.loads(envelope)["error"]["code"] == "invalid_token"
        assert int(sent_bytes) < BODY_BYTES / 2


async def test_httpx_sees_the_401(gateway: GatewayProcess):
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(LOOKS_LATE_BYTES)}
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(ROUNDS):
            answer = await client.post(f"{gateway.url}/api/v1/jobs", content=async_body(), headers=headers)
            assert answer.status_code == 401
            assert answer.headers["connection"] == "close"
            assert answer.json()["error"]["code"] == "invalid_token"


async def test_a_client_that_writes_without_looking_finds_the_401(gateway: GatewayProcess):
    def post() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the answer is there all the same
                connection.request("POST", "/api/v1/jobs", body(BODY_BYTES), {"Content-Length": str(BODY_BYTES)})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    for _ in range(ROUNDS):
        status, envelope = await asyncio.to_thread(post)
        assert status == 401
        assert json.loads(envelope)["error"]["code"] == "invalid_token"


async def test_a_client_that_ignores_the_401_is_cut_off(gateway: GatewayProcess):
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(f"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY_BYTES}\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    began = time.monotonic()
    with pytest.raises(ConnectionError):
        await push_for_ever(writer)
    assert time.monotonic() - began < 10
    writer.close()


async def push_for_ever(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(bytes(1024))
        await writer.drain()
        await asyncio.sleep(0.01)


async def test_a_client_that_waits_for_100_continue_never_sends(gateway: GatewayProcess):
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = f"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY_BYTES}\r\nExpect: 100-continue\r\n\r\n"
    writer.write(head.encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    writer.close()
    await writer.wait_closed()
