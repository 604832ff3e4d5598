"""Many clients of one stream of server-sent events, which note when each event came."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import urlsplit

import psutil
from gateways import cpu_s

from converter.devstack.loopback import HOST

EVENT = b"\ndata: "
CONNECTING_AT_ONCE = 50
WITHIN_S = 60.0
PAUSE_S = 0.05
"""Between the arrival of an event everywhere and the next one."""


class Crowd:
    """The clients of one stream; `sent` and `expected` are set before each event is sent."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.expected, self.waiting_for = 0, 0
        self.sent_at = 0.0
        self.took_s: list[float] = []
        self.last_event = b""
        self._all_have = asyncio.Event()

    def heard(self, count: int) -> None:
        """A client has `count` events now."""
        if count == self.expected:
            self.took_s.append(time.perf_counter() - self.sent_at)
            self.waiting_for -= 1
            if not self.waiting_for:
                self._all_have.set()

    async def told(self, tell: Callable[[], Awaitable[object]]) -> int:
        """Have one event told; how many clients have it within `WITHIN_S`."""
        self._all_have.clear()
        self.expected, self.waiting_for = self.expected + 1, len(self.listeners)
        self.sent_at = time.perf_counter()
        await tell()
        try:
            async with asyncio.timeout(WITHIN_S):
                await self._all_have.wait()
        except TimeoutError:
            pass
        return len(self.listeners) - self.waiting_for

    async def measure(
        self, server: psutil.Process, events: int, tell: Callable[[], Awaitable[object]]
    ) -> Mapping[str, float]:
        """One round: `events`, each when all have the one before."""
        self.took_s, delivered, began_s = [], 0, cpu_s(server)
        for _ in range(events):
            delivered += await self.told(tell)
            await asyncio.sleep(PAUSE_S)
        spent_s, expected = cpu_s(server) - began_s, events * len(self.listeners)
        return {
            "delivered": delivered / expected,
            "p50 ms": statistics.median(self.took_s) * 1000,
            "p99 ms": sorted(self.took_s)[int(len(self.took_s) * 0.99)] * 1000,
            "server CPU µs per client and event": spent_s / expected * 1e6,
        }


class Listener(asyncio.Protocol):
    """One client: it asks once and then only counts."""

    def __init__(self, crowd: Crowd, request: bytes) -> None:
        self._crowd, self._request = crowd, request
        self._count, self._end = 0, b""
        self.begun = asyncio.get_running_loop().create_future()
        """Done with the first event."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count the events in what came; a mark may be cut in two."""
        found = (self._end + data).count(EVENT)
        self._end = data[1 - len(EVENT) :]
        if not found:
            return
        if not self.begun.done():
            self.begun.set_result(None)
            return
        self._count += found
        self._crowd.last_event = data
        self._crowd.heard(self._count)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server has ended it, which it shall not."""
        if not self.begun.done():
            self.begun.set_exception(exc or ConnectionError("the stream did not begin"))


@asynccontextmanager
async def crowd(url: str, clients: int, **headers: str) -> AsyncIterator[Crowd]:
    """Clients that have each had the stream's first event.

    Raises:
        OSError: a client was not let in.
    """
    parts, gathered = urlsplit(url), Crowd()
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"Host": parts.netloc, **headers}.items())
    request = f"GET {parts.path} HTTP/1.1\r\n{lines}\r\n".encode()
    loop, free = asyncio.get_running_loop(), asyncio.Semaphore(CONNECTING_AT_ONCE)

    async def join() -> None:
        async with free:
            _, listener = await loop.create_connection(
                lambda: Listener(gathered, request), parts.hostname or HOST, parts.port or 80
            )
            gathered.listeners.append(listener)
            await listener.begun

    try:
        async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as joining:
            for _ in range(clients):
                joining.create_task(join())
        yield gathered
    finally:
        for listener in gathered.listeners:
            listener.transport.abort()
