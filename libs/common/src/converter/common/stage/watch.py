"""Tells an attempt when it shall stop: the worker drains, or the attempt no longer holds its stage."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self

from converter.common.background import Repeated, background
from converter.common.bus import Bus, BusRefused, EventBusUnavailable
from converter.common.eventlog import JobLog
from converter.common.stage.policy import holds
from converter.contracts import subjects
from converter.contracts.job import Stage


class Watch:
    """Over all attempts of a worker, of which each is at another job.

    Args:
        bus: brings the hint that a job is cancelled, to one listener for all attempts.
        job_log: tells whether an attempt still holds its stage.
        stage: which.
        look_s: how often that is asked without a hint.
        draining: set when the worker shall stop.
    """

    def __init__(self, bus: Bus, job_log: JobLog, stage: Stage, *, look_s: float, draining: asyncio.Event) -> None:
        self._bus, self._log, self._stage = bus, job_log, stage
        self._look_s, self._draining = look_s, draining
        self._looks: dict[str, Callable[[], Awaitable[None]]] = {}
        self._interrupted: set[asyncio.Event] = set()

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[Self]:
        """Listen while the context is open."""

        async def heard(subject: str, _payload: bytes) -> None:
            if look := self._looks.get(subjects.job_of(subject)):
                await look()

        async def drain() -> None:
            await self._draining.wait()
            for interrupted in self._interrupted:
                interrupted.set()

        async with self._bus.hear(subjects.CANCEL, heard), background(drain):
            yield self

    @contextlib.asynccontextmanager
    async def over(self, job_id: str, attempt: int, worker: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set when this attempt shall stop."""
        interrupted = asyncio.Event()
        if self._draining.is_set():
            interrupted.set()

        async def look() -> None:
            with contextlib.suppress(EventBusUnavailable, BusRefused):
                if not holds(await self._log.read(job_id), self._stage, attempt, worker):
                    interrupted.set()

        self._looks[job_id] = look
        self._interrupted.add(interrupted)
        try:
            async with Repeated(look, self._look_s):
                yield interrupted
        finally:
            self._interrupted.discard(interrupted)
            del self._looks[job_id]
