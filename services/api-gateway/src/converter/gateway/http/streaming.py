"""Answers whose body is sent while it is made, in constant memory however large it is and however slowly it is read."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from typing import NamedTuple, Self

import structlog
from litestar import Response
from litestar.types import ASGIApp, Receive, Scope, Send

from converter.common.background import background
from converter.common.storage import ArtifactCorrupt, ArtifactStore, ByteRange, ObjectNotFound, RangeNotSatisfiable
from converter.contracts.job import StoredObject

log = structlog.get_logger()

STALL_S = 60.0
"""A client that takes nothing for this long has gone, whatever its connection says."""

Body = Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]
"""Opens the body. What fails on entering is answered as an error; what fails later cuts the answer off."""


Recheck = Callable[[], Awaitable[object]]
"""Looks at the job again; raises when it was deleted this very moment, and its objects with it."""


class Until(NamedTuple):
    """When an answer is broken off, in seconds since 1970, and the last piece of it then."""

    at: float = math.inf
    last: bytes = b""


class Streamed(Response[bytes]):
    """An answer in pieces.

    Args:
        body: opens what is sent; not opened for HEAD.
        status_code: HTTP's.
        headers: all of them; without Content-Length the body is chunked.
        until: for how long it may go on.
    """

    def __init__(
        self, body: Body, *, status_code: int = 200, headers: Mapping[str, str], until: Until | None = None
    ) -> None:
        super().__init__(b"", status_code=status_code)
        self._body, self._status, self._until = body, status_code, until or Until()
        self._encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]

    def to_asgi_response(self, *_: object, **__: object) -> ASGIApp:  # type: ignore[override]  # all that is called
        """The answer itself, which takes nothing from the framework's layers."""
        return self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["state"].get("head"):
            await self._start(send)
        else:
            async with self._body() as chunks:
                await self._start(send)
                if not await _sent(chunks, self._until, receive, send):
                    log.info("http.client_gone")
                    return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self._status, "headers": self._encoded})


async def _sent(chunks: AsyncIterator[bytes], until: Until, receive: Receive, send: Send) -> bool:
    """Whether the client has stayed for all of it."""
    try:
        async with asyncio.timeout(None) as present, background(lambda: _end_when_gone(receive, present)):
            with _Taking(send, present) as client:
                try:
                    async with asyncio.timeout_at(_of_loop(until.at)) as allowed:
                        async for chunk in chunks:
                            await client.give(chunk)
                except TimeoutError:
                    if not allowed.expired():
                        raise
                    await client.give(until.last)
    except TimeoutError:
        if not present.expired():
            raise
        return False
    return True


class _Taking:
    """A client that is given pieces; `present` ends when it does not take one for `STALL_S`.

    One timer looks at that for the whole answer: one for each piece costs as much as sending it.
    """

    def __init__(self, send: Send, present: asyncio.Timeout) -> None:
        self._send, self._present, self._loop = send, present, asyncio.get_running_loop()
        self._given_at: float | None = None
        """When it was given what it has not taken yet."""

    def __enter__(self) -> Self:
        self._timer = self._loop.call_later(STALL_S, self._look)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._timer.cancel()

    async def give(self, chunk: bytes) -> None:
        """Send a piece."""
        self._given_at = self._loop.time()
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        self._given_at = None

    def _look(self) -> None:
        since = self._loop.time() if self._given_at is None else self._given_at
        if self._loop.time() - since < STALL_S:
            self._timer = self._loop.call_at(since + STALL_S, self._look)
        else:
            _end(self._present)


async def _end_when_gone(receive: Receive, present: asyncio.Timeout) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    _end(present)


def _end(present: asyncio.Timeout) -> None:
    if not present.expired():
        present.reschedule(0)


def _of_loop(at: float) -> float | None:
    """A time since 1970 on the loop's clock; none for never."""
    return asyncio.get_running_loop().time() + at - time.time() if math.isfinite(at) else None


@asynccontextmanager
async def opened(
    store: ArtifactStore, recorded: StoredObject, recheck: Recheck, byte_range: ByteRange | None = None
) -> AsyncIterator[AsyncGenerator[bytes, None]]:
    """The bytes of a job's object, or a range of them; the whole only with the recorded digest.

    Raises:
        ObjectNotFound: it is lost.
        ArtifactCorrupt: it has another size than recorded.
        StorageUnavailable: it cannot be read now.
        Refusal: whatever `recheck` says of an object that is not there.
    """
    async with AsyncExitStack() as stack:
        try:
            found = await stack.enter_async_context(store.open(recorded.object_key, byte_range))
        except (ObjectNotFound, RangeNotSatisfiable):
            await recheck()
            raise
        if found.total_bytes != recorded.size_bytes:
            raise ArtifactCorrupt(
                recorded.object_key, f"{found.total_bytes} bytes", f"{recorded.size_bytes} bytes as recorded"
            )
        yield found.chunks if byte_range else verified(found.chunks, recorded)


async def verified(chunks: AsyncGenerator[bytes, None], recorded: StoredObject) -> AsyncGenerator[bytes, None]:
    """The same bytes; the last of them only once all are known to have the recorded digest.

    Raises:
        ArtifactCorrupt: they do not; who reads them sees a body that ends early.
    """
    digest, held = hashlib.sha256(), b""
    async with aclosing(chunks):
        async for chunk in chunks:
            if held:
                yield held
            digest.update(chunk)
            held = chunk
    if digest.hexdigest() != recorded.sha256:
        raise ArtifactCorrupt(recorded.object_key, f"sha256 {digest.hexdigest()}", f"sha256 {recorded.sha256}")
    if held:
        yield held
