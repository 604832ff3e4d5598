"""Reconnects when the library takes the connection to be well and JetStream no longer answers on it.

The next server that the library knows is tried then, so a service leaves one that is cut off from its cluster.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import structlog
from nats.aio.client import Client

from converter.common.background import Repeated
from converter.common.bus.errors import EventBusUnavailable

log = structlog.get_logger()

LOOK_S = 5.0
SILENT_LOOKS = 4
"""In a row, so after fifteen seconds at least: a cluster finds itself a leader in five to eight. Until then each server
answers that it knows of none, as does one that is cut off from the others."""


class Healing:
    """Asks the server every `LOOK_S` between `begin` and `end`.

    A connection that breaks at an odd moment can end all of nats-py's own tasks. The library then neither reads nor
    pings, never notices, and says that it is connected.

    Args:
        client: the library's.
        round_trip: raises `EventBusUnavailable` where the server does not answer, or not for its cluster.
    """

    def __init__(self, client: Client, round_trip: Callable[[], Awaitable[float]]) -> None:
        self._client, self._round_trip = client, round_trip
        self.answered_at = time.monotonic()
        """When the server last did, on the monotonic clock."""
        self._silent = 0
        self._looking = Repeated(self._look, LOOK_S)

    async def begin(self) -> None:
        """Look from now on."""
        await self._looking.__aenter__()

    async def end(self) -> None:
        """Look no more."""
        await self._looking.__aexit__()

    async def _look(self) -> None:
        try:
            await self._round_trip()
        except EventBusUnavailable as error:
            # While it says that it is not connected, the library is reconnecting by itself.
            self._silent = self._silent + 1 if self._client.is_connected else 0
            if self._silent >= SILENT_LOOKS:
                log.warning("bus.silent", error=str(error))
                self._silent = 0
                await self._client.force_reconnect()
        else:
            self._silent, self.answered_at = 0, time.monotonic()
