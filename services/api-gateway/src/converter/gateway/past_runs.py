"""How long the stages took lately, as a gateway hears it while it runs."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator
from statistics import median

import msgspec

from converter.common.bus import Bus
from converter.contracts.facts import Event, StageCompleted
from converter.contracts.job import STAGES, Stage, moment

KEPT = 20
_events = msgspec.json.Decoder(Event)


class PastRuns:
    """The last runs of each stage; none are known right after a gateway's start."""

    def __init__(self) -> None:
        self._seconds: dict[Stage, deque[float]] = {stage: deque(maxlen=KEPT) for stage in STAGES}

    @contextlib.asynccontextmanager
    async def heard(self, bus: Bus) -> AsyncIterator[None]:
        """Take in every run that completes while the context is open."""

        async def on_completed(_subject: str, payload: bytes) -> None:
            with contextlib.suppress(msgspec.MsgspecError, RecursionError):
                self.add(_events.decode(payload))

        async with bus.hear("converter.v1.*.stage.completed.*", on_completed):
            yield

    def add(self, event: Event) -> None:
        """Take in one run; what was copied from a cache says nothing of how long work takes."""
        fact, job = event.fact, event.job
        if isinstance(fact, StageCompleted) and job is not None and not fact.cached:
            state = job.stages[fact.stage]
            if state.started_at and state.completed_at:
                took = moment(state.completed_at) - moment(state.started_at)
                self._seconds[fact.stage].append(took.total_seconds())

    def typical_s(self, stage: Stage) -> float | None:
        """The median of the last runs."""
        seconds = self._seconds[stage]
        return median(seconds) if seconds else None
