"""HTTP on an event loop, or blocking.

Everything above is written once, as coroutines over a `Wire`. Those of the blocking wire never suspend, so that
`completed` runs a coroutine, and `iterated` an asynchronous generator, to the end without an event loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ParamSpec, Protocol, TypeVar

import httpx
from msgspec import Struct

from converter.client.errors import Unreachable

T = TypeVar("T")
P = ParamSpec("P")
CHUNK_BYTES = 256 * 1024
WHOLE_MAX_BYTES = 256 * 1024 * 1024
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class Run(Protocol):
    """Calls a function that blocks, such as reading a file, where it does not hold up the event loop."""

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What `function` returns."""


class Body(Struct, frozen=True):
    """What a request carries. `read` begins at the first byte each time, so that a request can be sent again."""

    media_type: str
    size_bytes: int
    read: Callable[[Run], AsyncGenerator[bytes, None]]


class Call(Struct, frozen=True, kw_only=True):
    """One request. `read_timeout_s` is between two pieces of the answer."""

    method: str
    url: str
    params: dict[str, str] = {}
    headers: dict[str, str] = {}
    body: Body | None = None
    read_timeout_s: float | None = None
    repeatable: bool = True
    """Whether it does no harm when it arrives twice."""


class Answer(Struct, frozen=True):
    """The head of an answer, and its body as it comes."""

    url: str
    status: int
    headers: httpx.Headers
    chunks: AsyncIterator[bytes]

    async def whole(self) -> bytes:
        """The body.

        Raises:
            Unreachable: the connection broke, or it does not end.
        """
        content = bytearray()
        async for chunk in self.chunks:
            content += chunk
            if len(content) > WHOLE_MAX_BYTES:
                raise Unreachable(self.url, f"more than {WHOLE_MAX_BYTES} bytes", sent=True)
        return bytes(content)


class Wire(Protocol):
    """All that this library does to the outside."""

    def send(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        """The answer to `call`, whatever its status; `Unreachable` when there is none."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Do something that blocks."""

    def lock(self) -> AbstractAsyncContextManager[Any]:
        """Entered by one at a time."""

    async def close(self) -> None:
        """End every connection."""


class AsyncWire:
    """Over the event loop that runs; files are read in threads."""

    def __init__(self, timeout_s: float, *, trust_env: bool) -> None:
        self._http = httpx.AsyncClient(timeout=timeout_s, trust_env=trust_env)
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def send(self, call: Call) -> AsyncIterator[Answer]:
        """As `Wire` says."""
        content = call.body.read(self.run) if call.body else None
        try:
            async with self._http.stream(**_request(call, self._http.timeout), content=content) as response:
                chunks = response.aiter_bytes()
                yield Answer(call.url, response.status_code, response.headers, _told(call, chunks))
        except httpx.TransportError as error:
            raise _unreachable(call, error) from error

    async def sleep(self, seconds: float) -> None:
        """As `Wire` says."""
        await asyncio.sleep(seconds)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """As `Wire` says."""
        return await asyncio.to_thread(function, *args, **kwargs)

    def lock(self) -> AbstractAsyncContextManager[Any]:
        """As `Wire` says."""
        return self._lock

    async def close(self) -> None:
        """As `Wire` says."""
        await self._http.aclose()


class BlockingWire:
    """In the calling thread; no coroutine of it ever suspends."""

    def __init__(self, timeout_s: float, *, trust_env: bool) -> None:
        self._http = httpx.Client(timeout=timeout_s, trust_env=trust_env)
        self._lock = threading.Lock()

    @asynccontextmanager
    async def send(self, call: Call) -> AsyncIterator[Answer]:
        """As `Wire` says."""
        content = iterated(call.body.read(self.run)) if call.body else None
        try:
            with self._http.stream(**_request(call, self._http.timeout), content=content) as response:
                chunks = _asynchronous(response.iter_bytes())
                yield Answer(call.url, response.status_code, response.headers, _told(call, chunks))
        except httpx.TransportError as error:
            raise _unreachable(call, error) from error

    async def sleep(self, seconds: float) -> None:
        """As `Wire` says."""
        time.sleep(seconds)  # noqa: ASYNC251 - there is no event loop

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """As `Wire` says."""
        return function(*args, **kwargs)

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """As `Wire` says."""
        with self._lock:
            yield

    async def close(self) -> None:
        """As `Wire` says."""
        self._http.close()


def completed(work: Awaitable[T]) -> T:
    """The result of a coroutine over the blocking wire."""
    assert isinstance(work, Coroutine)  # noqa: S101 - nothing else is awaited above the blocking wire
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # the language does not type what a coroutine returns
    raise RuntimeError("a coroutine of the blocking wire waits for an event loop")


def iterated(items: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """What an asynchronous generator over the blocking wire gives."""

    async def following() -> T:
        return await anext(items)

    async def ended() -> None:
        await items.aclose()

    try:
        while True:
            try:
                item = completed(following())
            except StopAsyncIteration:
                return
            yield item
    finally:
        completed(ended())


async def _asynchronous(items: Iterable[T]) -> AsyncGenerator[T, None]:
    for item in items:
        yield item


async def _told(call: Call, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """`chunks`; what breaks them is raised as `Unreachable`."""
    try:
        async for chunk in chunks:
            yield chunk
    except (httpx.TransportError, httpx.DecodingError) as error:
        raise _unreachable(call, error) from error


def _request(call: Call, timeout: httpx.Timeout) -> dict[str, Any]:
    headers = dict(call.headers)
    if call.body:
        headers |= {"Content-Type": call.body.media_type, "Content-Length": str(call.body.size_bytes)}
    if call.read_timeout_s:
        timeout = httpx.Timeout(timeout.write, read=call.read_timeout_s)
    params = call.params or None
    return {"method": call.method, "url": call.url, "params": params, "headers": headers, "timeout": timeout}


def _unreachable(call: Call, error: Exception) -> Unreachable:
    return Unreachable(call.url, str(error) or type(error).__name__, sent=not isinstance(error, _NEVER_SENT))
