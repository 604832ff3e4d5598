"""Where a queued job stands: how many are taken before it, as the stage's consumer will deliver them."""

from __future__ import annotations

import asyncio
import time

import structlog
from msgspec import Struct

from converter.common.bus import Bus, BusRefused, EventBusUnavailable
from converter.common.eventlog import JobLog
from converter.common.topology import EVENTS, stage_durable
from converter.common.workers import alive
from converter.contracts import subjects
from converter.contracts.job import STAGES, JobRecord, JobStatus, Stage
from converter.gateway.index import JobIndex
from converter.gateway.past_runs import PastRuns

log = structlog.get_logger()


class Place(Struct, frozen=True):
    """Where a job stands."""

    position: int
    """1 for the job that is taken next."""
    estimated_wait_s: float | None
    """How long until a worker takes it, if runs go on as they did lately; none while none or no worker is known."""


LOOKED_AT = 100
"""How many waiting jobs are looked at; who stands further back is told nothing."""
FRESH_S = 1.0


class Queues:
    """The first waiting jobs of each stage, looked up when somebody asks and kept for `FRESH_S`.

    Args:
        bus: tells what each stage's consumer has not delivered yet.
        index: tells which of these still wait; a cancelled job keeps its place until it is delivered.
        job_log: tells it of those that the index does not have.
        past_runs: how long the stages take.
    """

    def __init__(self, bus: Bus, index: JobIndex, job_log: JobLog, past_runs: PastRuns) -> None:
        self._bus, self._index, self._log, self._past_runs = bus, index, job_log, past_runs
        self._waiting = {stage: _Waiting() for stage in STAGES}

    async def place(self, job: JobRecord) -> Place | None:
        """The job's place; none when it does not wait, stands far back, or nothing is known.

        A job that a worker gave back is delivered again apart from this order: none, too.
        """
        if job.status is not JobStatus.QUEUED or job.stage is None:
            return None
        waiting = await self._fresh(job.stage)
        position, typical_s = waiting.jobs.get(job.job_id), self._past_runs.typical_s(job.stage)
        if position is None:
            return None
        wait_s = round(position / waiting.slots * typical_s, 1) if waiting.slots and typical_s is not None else None
        return Place(position, wait_s)

    async def unattended(self, job: JobRecord) -> bool:
        """Whether the job waits for a stage that no worker is there for; not while nobody can tell."""
        if job.status is not JobStatus.QUEUED or job.stage is None:
            return False
        return (await self._fresh(job.stage)).slots == 0

    async def _fresh(self, stage: Stage) -> _Waiting:
        waiting = self._waiting[stage]
        if not waiting.fresh:
            async with waiting.looking:
                if not waiting.fresh:
                    waiting.jobs, waiting.slots = await self._look(stage, waiting)
                    waiting.looked_at = time.monotonic()
        return waiting

    async def _look(self, stage: Stage, known: _Waiting) -> tuple[dict[str, int], int | None]:
        """The places of the first waiting jobs, and how many jobs its workers take at once (none: unknown)."""
        try:
            await self._follow(stage, known)
            await self._index.refresh()
            waiting = [job_id for job_id in known.undelivered.values() if await self._waits(job_id, stage)]
            workers = [worker for worker in await alive(self._bus) if worker.service == stage_durable(stage)]
        except (EventBusUnavailable, BusRefused) as error:
            log.warning("queue.unknown", stage=stage, error=str(error))
            return {}, None
        places = {job_id: position for position, job_id in enumerate(waiting, start=1)}
        return places, sum(worker.concurrency for worker in workers)

    async def _waits(self, job_id: str, stage: Stage) -> bool:
        told = self._index.waits(job_id, stage)
        if told is not None:
            return told
        state = await self._log.read(job_id)
        return isinstance(state, JobRecord) and state.status is JobStatus.QUEUED and state.stage is stage

    async def _follow(self, stage: Stage, known: _Waiting) -> None:
        """Bring `undelivered` up to date: drop what was delivered, read what has come since."""
        consumer = await self._bus.api(f"CONSUMER.INFO.{EVENTS}.{stage_durable(stage)}")
        feed, delivered = consumer["config"]["filter_subject"], consumer["delivered"]["stream_seq"]
        if delivered < known.delivered:  # it was made anew
            known.undelivered.clear()
        known.delivered = delivered
        for sequence in [sequence for sequence in known.undelivered if sequence <= delivered]:
            del known.undelivered[sequence]
        if room := LOOKED_AT - len(known.undelivered):
            last = max(known.undelivered, default=delivered)
            for message in await self._bus.batch_after(EVENTS, feed, last, count=room):
                known.undelivered[message.sequence] = subjects.job_of(message.subject)


class _Waiting:
    """What is known of one stage's queue."""

    def __init__(self) -> None:
        self.looking = asyncio.Lock()
        self.looked_at = -FRESH_S
        self.delivered = 0
        """How far the consumer has come."""
        self.undelivered: dict[int, str] = {}
        """The first jobs past it by the sequence of the message that will bring them, in order."""
        self.jobs: dict[str, int] = {}
        """Their places, without those that do not wait any more."""
        self.slots: int | None = None

    @property
    def fresh(self) -> bool:
        return time.monotonic() < self.looked_at + FRESH_S
