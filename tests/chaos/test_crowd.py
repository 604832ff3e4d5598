"""The API answers honest clients while a crowd follows and vanishes, dawdles, or has taken every file descriptor.

CHAOS_CROWD is how many there are (`make soak`: 1,000).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
import pytest_asyncio
from upstream import fetch_token
from waiting import eventually

from converter.common.background import background
from converter.devstack import demo
from converter.devstack.addresses import SCOPES
from converter.devstack.stack import Stack

CROWD = int(os.environ.get("CHAOS_CROWD", "200"))
HONEST = CROWD
AT_ONCE = 50
MEMORY_EACH = 128 << 10
"""Bytes that one of the crowd may cost the gateway."""
SPARE_DESCRIPTORS = 20
DRIP_S, WATCHED_S = 1.0, 2.0
SLOWLY_SENT = {"Content-Type": "application/json", "Content-Length": "1000"}

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120 + CROWD)]


class Gateway(NamedTuple):
    """A gateway whose jobs stay queued, and an honest client of it."""

    stack: Stack
    http: httpx.AsyncClient
    newcomer: httpx.AsyncClient
    """Keeps no connection."""
    job_path: str

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.stack.pids["api-gateway"])

    async def connection(self, method: str, path: str, **headers: str) -> Connection:
        """A new connection on which a request's head was sent."""
        address = urlsplit(self.stack.gateway_urls[0])
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        sent = {"Host": address.netloc, "Authorization": self.http.headers["Authorization"]} | headers
        lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        writer.write(f"{method} {path} HTTP/1.1\r\n{lines}".encode())
        return Connection(reader, writer)

    async def metric(self, name: str) -> float:
        page = (await self.http.get(f"{self.stack.env['INTERNAL_URL']}/metrics")).text
        return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name))

    async def served(self) -> bool:
        """Whether an honest client, with a connection of its own, is shown its job."""
        try:
            return (await self.newcomer.get(self.job_path)).is_success
        except httpx.TransportError:
            return False


class Connection(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def vanish(self) -> None:
        self.writer.transport.abort()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    nobody = dict.fromkeys(("onnx", "bie", "nef", "promoter"), 0)
    settings = {"API_V1_RATE_LIMIT_MAX": "1000000"}
    async with Stack(tmp_path_factory.mktemp("stack"), workers=nobody, settings=settings) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(stack: Stack) -> AsyncIterator[Gateway]:
    """With a new job."""
    async with httpx.AsyncClient(trust_env=False, timeout=30, base_url=stack.gateway_urls[0]) as http:
        http.headers["Authorization"] = f"Bearer {await fetch_token(http, stack.env, scope=' '.join(SCOPES))}"
        model = ("model", ("digits.onnx", (demo.DATA / "digits_cnn.onnx").read_bytes()))
        fields = demo.FIELDS | {"user_id": os.urandom(4).hex(), "targets": "onnx"}
        posted = await http.post("/api/v1/jobs", data=fields, files=[model])
        path = f"/api/v1/jobs/{posted.raise_for_status().json()['job_id']}"
        keeps_none = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(
            trust_env=False, timeout=10, base_url=http.base_url, headers=http.headers, limits=keeps_none
        ) as newcomer:
            yield Gateway(stack, http, newcomer, path)


@asynccontextmanager
async def bounded(gateway: Gateway) -> AsyncIterator[None]:
    """At the end the gateway has not grown by more than the crowd may cost."""
    before = gateway.process.memory_info().rss
    yield
    assert gateway.process.memory_info().rss - before < (32 << 20) + CROWD * MEMORY_EACH


async def test_streams_of_those_who_stay_go_on_when_half_of_the_crowd_vanishes(gateway: Gateway):
    free = asyncio.Semaphore(AT_ONCE)

    async def follow() -> Connection:
        async with free:
            stream = await gateway.connection("GET", f"{gateway.job_path}/events")
            stream.writer.write(b"\r\n")
            await stream.reader.readuntil(b"event: job.created\n")
            return stream

    async with bounded(gateway):
        streams = await asyncio.gather(*(follow() for _ in range(CROWD)))
        assert await gateway.metric("converter_event_streams_open ") == CROWD
        vanishing, staying = streams[::2], streams[1::2]
        for stream in vanishing:
            stream.vanish()

        async def forgotten() -> bool:
            return await gateway.metric("converter_event_streams_open ") == len(staying)

        await eventually(forgotten, within_s=30)
        assert await gateway.served()
    (await gateway.http.post(f"{gateway.job_path}/cancel")).raise_for_status()
    for rest in await asyncio.gather(*(stream.reader.readuntil(b"\r\n0\r\n\r\n") for stream in staying)):
        assert rest.count(b"event: job.cancelled\n") == 1
    for stream in staying:
        stream.vanish()


async def test_honest_requests_are_served_while_a_crowd_sends_heads_and_bodies_byte_by_byte(gateway: Gateway):
    slow: set[Connection] = set()

    async def dawdle(*, sends_head: bool) -> None:
        """A byte a second; who is cut off comes again."""
        while True:
            connection = await gateway.connection("POST", f"{gateway.job_path}/promote", **SLOWLY_SENT)
            slow.add(connection)
            if sends_head:
                connection.writer.write(b"\r\n")
            try:
                while not connection.reader.at_eof():
                    connection.writer.write(b"X")
                    await connection.writer.drain()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(DRIP_S):
                            await connection.reader.read(1024)
            except OSError:
                pass
            finally:
                slow.discard(connection)
                connection.vanish()

    crowd = [lambda n=n: dawdle(sends_head=n % 2 == 0) for n in range(CROWD)]  # type: ignore[misc]  # a default for mypy
    async with bounded(gateway), background(*crowd):
        await eventually(lambda: _as_many(slow, CROWD), within_s=60)
        free = asyncio.Semaphore(AT_ONCE // 5)

        async def served() -> bool:
            async with free:
                return await gateway.served()

        answers = await asyncio.gather(*(served() for _ in range(HONEST)))
        assert sum(answers) >= 0.99 * HONEST
        assert len(slow) >= 0.9 * CROWD, "they are there all the time: who is cut off comes again"


async def _as_many(connections: set[Connection], count: int) -> bool:
    return len(connections) == count


async def test_a_gateway_without_descriptors_serves_whom_it_has_does_not_spin_and_recovers(gateway: Gateway):
    process = gateway.process
    assert await gateway.served()
    limits = process.rlimit(resource.RLIMIT_NOFILE)
    process.rlimit(resource.RLIMIT_NOFILE, (process.num_fds() + SPARE_DESCRIPTORS, limits[1]))
    crowd = [await gateway.connection("GET", gateway.job_path) for _ in range(2 * SPARE_DESCRIPTORS)]
    try:

        async def full() -> bool:
            return not await gateway.served()

        await eventually(full)
        (await gateway.http.get(gateway.job_path)).raise_for_status()  # on the connection that it has
        before = sum(process.cpu_times()[:2])
        await asyncio.sleep(WATCHED_S)
        assert sum(process.cpu_times()[:2]) - before < WATCHED_S / 2
    finally:
        for connection in crowd:
            connection.vanish()
    await eventually(gateway.served)
    process.rlimit(resource.RLIMIT_NOFILE, limits)
