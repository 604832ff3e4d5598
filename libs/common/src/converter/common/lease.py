"""Work that one process at a time does: whoever holds the lease.

A lease is a key of the bucket `leases`, which forgets it when its holder stops renewing it. That saves work; it does
not fence: a holder that slept past its lease may do a little more beside the next one, so the work has to bear that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from converter.common.background import background
from converter.common.bus import Bus, BusRefused, EventBusUnavailable, WrongSequence
from converter.common.topology import LEASES, bucket_key, bucket_stream

log = structlog.get_logger()

RENEWALS_PER_LIFE = 3
RETRY_S = 5.0
"""How soon to try again when the event bus says no, as before the bucket is provisioned."""


class Lease:
    """One process's wish to hold the lease `name`.

    Args:
        bus: the connection.
        name: what is leased; one token of a subject.
    """

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus, self._name = bus, name
        self._subject = bucket_key(LEASES, name)
        self._holder = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}".encode()
        self._sequence = 0

    async def while_held(self, *works: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """For ever: wait for the lease, run `works` until it is lost (they are cancelled then), wait again."""
        while True:
            pause_s = RETRY_S
            try:
                life_s = await self._life_s()
                pause_s = life_s / RENEWALS_PER_LIFE
                if await self._taken():
                    await self._held(life_s, *works)
            except (EventBusUnavailable, BusRefused) as error:
                log.warning("lease.unknown", lease=self._name, error=str(error))
            await asyncio.sleep(pause_s)

    async def _held(self, life_s: float, *works: Callable[[], Coroutine[Any, Any, None]]) -> None:
        log.info("lease.taken", lease=self._name)
        try:
            async with background(*works):
                await self._renewed_until_lost(life_s)
        finally:
            await self._give_back()
        log.warning("lease.lost", lease=self._name)

    async def _life_s(self) -> float:
        info = await self._bus.api(f"STREAM.INFO.{bucket_stream(LEASES)}")
        return float(info["config"]["max_age"] / 1e9)

    async def _taken(self) -> bool:
        """Take the lease if it is free, or ours after all: a write whose answer was lost."""
        found = await self._bus.last(bucket_stream(LEASES), self._subject)
        if found and found.data == self._holder:
            self._sequence = found.sequence
            return True
        if found and found.data:
            return False
        try:
            self._sequence = await self._bus.store(self._subject, self._holder, expected=found.sequence if found else 0)
        except WrongSequence:
            return False
        return True

    async def _renewed_until_lost(self, life_s: float) -> None:
        clock = asyncio.get_running_loop().time
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(life_s) as left:
                while True:
                    await asyncio.sleep(life_s / RENEWALS_PER_LIFE)
                    began = clock()
                    try:
                        if not await self._renewed():
                            return
                    except (EventBusUnavailable, BusRefused) as error:
                        log.warning("lease.not_renewed", lease=self._name, error=str(error))
                    else:
                        left.reschedule(began + life_s)

    async def _renewed(self) -> bool:
        try:
            self._sequence = await self._bus.store(self._subject, self._holder, expected=self._sequence)
        except WrongSequence:
            return await self._taken()
        return True

    async def _give_back(self) -> None:
        with contextlib.suppress(EventBusUnavailable, BusRefused, WrongSequence):
            await self._bus.store(self._subject, b"", headers={"KV-Operation": "DEL"}, expected=self._sequence)
