"""Work that goes on beside something else and ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import structlog

log = structlog.get_logger()

CANCEL_AGAIN_S = 0.5
"""`asyncio.wait_for` of Python 3.11 can swallow a cancellation that comes together with its result; then once more."""


@asynccontextmanager
async def background(*works: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run `works` while the context is open; at its end they are cancelled. One that fails is logged."""
    tasks = [asyncio.create_task(work()) for work in works]
    for task in tasks:
        task.add_done_callback(_tell_of_failure)
    try:
        yield
    finally:
        pending = set(tasks)
        while pending:
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)


def _tell_of_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("background.failed", work=task.get_coro().__qualname__, exc_info=error)  # type: ignore[union-attr]
