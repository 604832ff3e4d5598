"""Bounded waits on conditions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from converter.common.bus import Bus
from converter.common.topology import EVENTS

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


async def all_settled(bus: Bus, durable: str) -> bool:
    """Whether everything that the log holds for the consumer is settled.

    Held to the log's own last message: a consumer hears of a new one a moment after its publisher does, and until
    then counts nothing as pending.
    """
    info = await bus.api(f"CONSUMER.INFO.{EVENTS}.{durable}")
    last = await bus.last(EVENTS, info["config"]["filter_subject"])
    return last is None or info["ack_floor"]["stream_seq"] >= last.sequence
