"""Server-sent events (HTML Living Standard, section 9.2)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
from litestar import Response

from converter.gateway.http.streaming import Streamed

HEARTBEAT_S = 15.0
HEARTBEAT = b":\n\n"
"""A comment: nobody sees it, but a proxy does not take the connection for idle."""
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would collect events until its buffer is full
}


def sse_answer(events: Callable[[], AsyncGenerator[bytes, None]]) -> Response[bytes]:
    """A stream of what `events` gives; ended with the connection."""
    return Streamed(lambda: aclosing(events()), headers=_HEADERS)


def sse_event(kind: str, data: Any, id_: int | None = None) -> bytes:  # noqa: ANN401 - whatever JSON can say
    """One event; without an id the client's last one stays."""
    head = b"" if id_ is None else b"id: %d\n" % id_
    return head + b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(data))
