from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from converter.gateway.http.body import ClientGone, Pace, chunks, whole
from converter.gateway.http.errors import Refusal

QUICK = Pace(idle_s=0.2, grace_s=0.05, floor_bytes_per_s=1000)


class Connection:
    """What a server hands out of a body: a message at a time, each after its pause."""

    def __init__(self, *messages: tuple[float, dict[str, Any]]) -> None:
        self._messages: Iterator[tuple[float, dict[str, Any]]] = iter(messages)

    async def receive(self) -> Any:  # noqa: ANN401 - one of ASGI's events
        pause_s, message = next(self._messages)
        await asyncio.sleep(pause_s)
        return message


def piece(body: bytes, *, more: bool = True, after_s: float = 0.0) -> tuple[float, dict[str, Any]]:
    return after_s, {"type": "http.request", "body": body, "more_body": more}


async def read(*messages: tuple[float, dict[str, Any]], limit_bytes: int = 1000) -> bytes:
    return await whole(Connection(*messages).receive, limit_bytes=limit_bytes, pace=QUICK)


async def refusal(*messages: tuple[float, dict[str, Any]]) -> str:
    with pytest.raises(Refusal) as caught:
        await read(*messages)
    return caught.value.code


async def test_a_body_is_read_to_its_end():
    assert await read(piece(b"ab"), piece(b""), piece(b"c", more=False)) == b"abc"


async def test_a_silent_client_is_timed_out():
    assert await refusal(piece(b"a"), piece(b"b", after_s=5.0)) == "request_timeout"


async def test_a_client_that_trickles_is_timed_out():
    assert await refusal(*[piece(b"a", after_s=0.02)] * 50) == "request_timeout"


async def test_a_slow_store_is_not_the_clients_fault():
    body = b""
    async for chunk in chunks(
        Connection(piece(b"a"), piece(b"b"), piece(b"c", more=False)).receive, limit_bytes=10, pace=QUICK
    ):
        await asyncio.sleep(0.1)
        body += chunk
    assert body == b"abc"


async def test_a_client_that_vanishes_is_told_from_one_that_has_ended():
    with pytest.raises(ClientGone):
        await read(piece(b"a"), (0.0, {"type": "http.disconnect"}))


async def test_a_body_over_its_limit_is_refused():
    assert await refusal(piece(b"a" * 600), piece(b"a" * 600)) == "file_too_large"
