"""A request's body as it arrives, with limits on how much and how slowly.

ClientGone    the connection ended before the body did; there is nobody to answer
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from litestar.types import Receive
from msgspec import Struct

from converter.gateway.http.errors import Refusal
from converter.gateway.metrics import UPLOADED_BYTES


class ClientGone(Exception):
    """The client has closed the connection."""


class Pace(Struct, frozen=True, kw_only=True):
    """How slow a client may be: never silent for `idle_s`, and after `grace_s` of waiting for it never below the floor.

    Only time spent waiting for the client counts there, not what storing its bytes takes; `limit_s` is of all of it.
    """

    idle_s: float = 20.0
    grace_s: float = 10.0
    floor_bytes_per_s: int = 16 * 1024
    limit_s: float = 86_400.0


async def chunks(receive: Receive, *, limit_bytes: int, pace: Pace) -> AsyncGenerator[bytes, None]:
    """The body in pieces as the server hands them out.

    Raises:
        ClientGone: the client vanished.
        Refusal: `request_timeout` for a client that is too slow, `file_too_large` past `limit_bytes`.
    """
    size, waited_s, more, started = 0, 0.0, True, time.monotonic()
    while more:
        began = time.monotonic()
        if began - started > pace.limit_s:
            raise Refusal("request_timeout", f"The body took longer than {pace.limit_s:g} s.")
        try:
            async with asyncio.timeout(pace.idle_s):
                message = await receive()
        except TimeoutError:
            raise Refusal("request_timeout", f"Nothing came for {pace.idle_s:g} s.") from None
        waited_s += time.monotonic() - began
        if message["type"] != "http.request":
            raise ClientGone
        chunk, more = message["body"], message["more_body"]
        size += len(chunk)
        if size > limit_bytes:
            raise Refusal("file_too_large", "The body is over its limit.", details={"limit_bytes": limit_bytes})
        if more and size < pace.floor_bytes_per_s * (waited_s - pace.grace_s):
            raise Refusal("request_timeout", f"The body came more slowly than {pace.floor_bytes_per_s} bytes a second.")
        if chunk:
            UPLOADED_BYTES.inc(len(chunk))
            yield chunk


async def whole(receive: Receive, *, limit_bytes: int, pace: Pace) -> bytes:
    """A small body at once.

    Raises:
        ClientGone, Refusal: as `chunks` does.
    """
    return b"".join([chunk async for chunk in chunks(receive, limit_bytes=limit_bytes, pace=pace)])
