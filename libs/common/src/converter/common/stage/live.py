"""Tells how a conversion goes while it goes: progress and log lines, a few messages a second at most."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Self

import msgspec

from converter.common.background import Repeated
from converter.common.bus import Bus, EventBusUnavailable
from converter.contracts import subjects
from converter.contracts.job import Stage, timestamp
from converter.contracts.live import LogWritten, ProgressReported

EVERY_S = 0.1
LINES_AT_ONCE = 200


class Live:
    """One attempt's progress and log, published while the context is open, and what is left at its end.

    What comes faster than it can be told is left out: of progress all but the last, of log lines the oldest. The
    whole log is kept as an object.
    """

    def __init__(self, bus: Bus, stage: Stage, job_id: str, attempt: int) -> None:
        self._bus, self._stage, self._job_id, self._attempt = bus, stage, job_id, attempt
        self._progress: ProgressReported | None = None
        self._lines: deque[str] = deque(maxlen=LINES_AT_ONCE)
        self._telling = Repeated(self._tell, EVERY_S)

    def progress(self, fraction: float, activity: str) -> None:
        """Say how far it is, 0 to 1, and what is being done."""
        self._progress = ProgressReported(
            at=timestamp(),
            stage=self._stage,
            attempt=self._attempt,
            fraction=min(max(fraction, 0.0), 1.0),
            activity=activity,
        )

    def line(self, text: str) -> None:
        """Add a log line."""
        self._lines.append(text)

    async def __aenter__(self) -> Self:
        await self._telling.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._telling.__aexit__(*exc_info)
        await self._tell()

    async def _tell(self) -> None:
        with contextlib.suppress(EventBusUnavailable):
            if self._progress is not None:
                progress, self._progress = self._progress, None
                await self._bus.emit(subjects.progress(self._stage, self._job_id), msgspec.json.encode(progress))
            while self._lines:
                line = LogWritten(at=timestamp(), stage=self._stage, attempt=self._attempt, line=self._lines.popleft())
                await self._bus.emit(subjects.log(self._stage, self._job_id), msgspec.json.encode(line))
