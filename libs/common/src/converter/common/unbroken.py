"""Work that a cancellation may not interrupt halfway."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end even when the caller is cancelled meanwhile, and only then let the cancellation through.

    For steps that must not be left half done: a request whose answer is needed to undo it, a thread that writes to a
    file, tidying up. `work` has to be bounded in time.
    """
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as cancellation:
            cancelled = cancellation
    if cancelled is not None:
        task.exception()  # seen, so that asyncio does not report it as lost
        raise cancelled
    return task.result()
