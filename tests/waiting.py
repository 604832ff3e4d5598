"""Bounded waits on conditions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(look: Callable[[], Awaitable[T | None]], *, within_s: float = 10.0) -> T:
    """The first true answer of `look`, asked again and again."""
    give_up_at = time.monotonic() + within_s
    while True:
        found = await look()
        if found:
            return found
        if time.monotonic() >= give_up_at:
            raise AssertionError(f"did not come true within {within_s} s: {look}")
        await asyncio.sleep(0.02)
