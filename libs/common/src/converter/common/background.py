"""Work that goes on beside something else and ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog

log = structlog.get_logger()

AGAIN_S = 1.0
"""The pause between a failure and the next try."""
CANCEL_AGAIN_S = 0.5
"""`asyncio.wait_for` of Python 3.11 can swallow a cancellation that comes together with its result; then once more."""


@asynccontextmanager
async def background(*works: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run `works` while the context is open, and cancel them at its end. One that fails is logged and started again."""
    tasks = [asyncio.create_task(_kept_up(work, AGAIN_S)) for work in works]
    try:
        yield
    finally:
        await _end(tasks)


class Repeated:
    """Calls `work` every `every_s` while the context is open, for the first time after `every_s`.

    A call that fails is logged, and the next one is made all the same. A context that ends before the first call costs
    a timer and no task.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]], every_s: float) -> None:
        self._work, self._every_s = work, every_s
        self._repeating: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> None:
        self._first = asyncio.get_running_loop().call_later(self._every_s, self._begin)

    async def __aexit__(self, *exc_info: object) -> None:
        self._first.cancel()
        await _end(self._repeating)

    def _begin(self) -> None:
        self._repeating.append(asyncio.create_task(_kept_up(self._repeat, self._every_s)))

    async def _repeat(self) -> None:
        while True:
            await self._work()
            await asyncio.sleep(self._every_s)


async def _kept_up(work: Callable[[], Coroutine[Any, Any, None]], again_s: float) -> None:
    """Call `work`, again after each failure, until it returns: one fault must not end a heartbeat."""
    while True:
        try:
            return await work()
        except Exception:
            log.exception("background.failed", work=getattr(work, "__qualname__", repr(work)))
            await asyncio.sleep(again_s)


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
