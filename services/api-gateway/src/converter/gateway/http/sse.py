"""Server-sent events (HTML Living Standard, section 9.2)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from typing import Any

import msgspec
from litestar import Response

from converter.gateway.http.streaming import Streamed, Until

HEARTBEAT_S = 15.0
HEARTBEAT = b":\n\n"
"""A comment: nobody sees it, but a proxy does not take the connection for idle."""
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would collect events until its buffer is full
}


def sse_answer(
    events: Callable[[], AsyncGenerator[bytes, None]], slot: AbstractContextManager[None], expires_at: float
) -> Response[bytes]:
    """A stream of what `events` gives, ended with the connection.

    Args:
        events: begins it.
        slot: held while it is open; may refuse it.
        expires_at: when the access of whoever opened it ends, since 1970; the stream then ends with the event `end`.
    """

    @asynccontextmanager
    async def body() -> AsyncIterator[AsyncGenerator[bytes, None]]:
        with slot:
            async with aclosing(events()) as chunks:
                yield chunks

    return Streamed(body, headers=_HEADERS, until=Until(expires_at, sse_event("end", {"reason": "token_expired"})))


def sse_event(kind: str, data: Any, id_: int | str | None = None) -> bytes:  # noqa: ANN401 - whatever JSON can say
    """One event; without an id the client's last one stays."""
    head = b"" if id_ is None else f"id: {id_}\n".encode()
    return head + b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(data))
