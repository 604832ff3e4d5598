"""What becomes of a connection, as the library tells it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import structlog

from converter.common.environment import without_password
from converter.common.metrics import BUS_INTERRUPTIONS

log = structlog.get_logger()

REFUSED_S = 5.0
"""For how long servers may go on refusing the user, as while one is given another configuration."""
REFUSAL = "authorization violation"


class ConnectionEvents:
    """What the library tells of the connection, for the log and for whoever cannot go on without one."""

    def __init__(self, address: str, on_lost: Callable[[], None]) -> None:
        self._address, self._on_lost = address, on_lost
        self.open = False
        """Whether the connection is meant to be there."""
        self._told: str | None = None
        self._last: str | None = None
        self._refused_at = self._refused_last = -math.inf

    @property
    def problem(self) -> str | None:
        """What a server told, for one that refuses says why and then hangs up; or else the last that went wrong."""
        return self._told or self._last

    async def on_error(self, error: Exception) -> None:
        """Something went wrong; the library goes on if it can."""
        self._last = str(error) or type(error).__name__
        if self._last.startswith("nats: '"):  # the library quotes a server's own words
            self._told = self._last
        log.warning("bus.error", error=self._last)
        if self.open and REFUSAL in self._last.lower():
            now = time.monotonic()
            if now > self._refused_last + REFUSED_S:
                self._refused_at = now
            self._refused_last = now
            if now >= self._refused_at + REFUSED_S:
                await self.on_closed()  # the library would ask for ever

    async def on_disconnect(self) -> None:
        """The connection is gone; one that this process closes is none that was lost."""
        if self.open:
            BUS_INTERRUPTIONS.inc()
            log.warning("bus.disconnected")

    async def on_reconnect(self) -> None:
        """There is one again."""
        self._told = self._last = None
        self._refused_last = -math.inf
        log.info("bus.reconnected")

    async def on_closed(self) -> None:
        """There will be none again."""
        if self.open:
            self.open = False
            log.critical("bus.lost", address=without_password(self._address), error=self.problem)
            self._on_lost()
