"""Identifiers that sort by the time at which they were made."""

from __future__ import annotations

import os
import time
import uuid
from collections import deque
from datetime import UTC, datetime

VERSION = 7
_RANDOM_DIGITS, _DRAWN_AT_ONCE = 20, 256
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
_drawn: deque[str] = deque()
"""Random digits for the next ones. Every request has an identifier, and to ask the kernel is most of its price."""
os.register_at_fork(after_in_child=_drawn.clear)  # or parent and child would make the same


def uuid7() -> str:
    """A UUIDv7 (RFC 9562 section 5.7): 48 bits of Unix milliseconds, then 74 random bits."""
    made, random = f"{time.time_ns() // 1_000_000:012x}", _random()
    return f"{made[:8]}-{made[8:]}-7{random[:3]}-{_VARIANT[random[3]]}{random[4:7]}-{random[7:19]}"


def _random() -> str:
    while True:
        try:
            return _drawn.popleft()  # never the same to two threads
        except IndexError:
            drawn = os.urandom(_DRAWN_AT_ONCE * _RANDOM_DIGITS // 2).hex()
            _drawn.extend(drawn[start : start + _RANDOM_DIGITS] for start in range(0, len(drawn), _RANDOM_DIGITS))


def made_at(identifier: str) -> datetime:
    """When `identifier` was made, by the clock of its maker.

    Raises:
        ValueError: it is none of `uuid7`, as that writes it.
    """
    found = uuid.UUID(identifier)
    if found.version != VERSION or str(found) != identifier:
        raise ValueError(f"not a UUIDv7: {identifier!r}")
    return datetime.fromtimestamp((found.int >> 80) / 1000, UTC)
