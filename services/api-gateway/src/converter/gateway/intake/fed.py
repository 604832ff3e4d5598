"""Feeds a walk that may be busy for long, without keeping other requests waiting."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

SLICE_BYTES = 4096
"""Two thousand fields of a model, or 400 KB unpacked: a few milliseconds at the worst."""
BUSY_S = 0.005


class Walk(Protocol):
    """What is fed: it looks at a file's bytes as they come."""

    @property
    def skipping(self) -> int:
        """How many of the next bytes do not matter."""

    def feed(self, piece: bytes) -> None:
        """Look at the next bytes."""


async def feed(walk: Walk, piece: bytes) -> None:
    """Feed `piece` to `walk`, in turns with everything else that goes on."""
    began = time.monotonic()
    at = 0
    while at < len(piece):
        size = max(walk.skipping, SLICE_BYTES)
        walk.feed(piece[at : at + size] if at or size < len(piece) else piece)
        at += size
        if time.monotonic() - began > BUSY_S:
            await asyncio.sleep(0)
            began = time.monotonic()
