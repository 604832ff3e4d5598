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
        job_log: tells which of these still wait; a cancelled job keeps its place until it is delivered.
        past_runs: how long the stages take.
    """

    def __init__(self, bus: Bus, job_log: JobLog, past_runs: PastRuns) -> None:
        self._bus, self._log, self._past_runs = bus, job_log, past_runs
        self._waiting = {stage: _Waiting() for stage in STAGES}

    async def place(self, job: JobRecord) -> Place | None:
        """The job's place; none when it does not wait, stands far back, or nothing is known.

        A job that a worker gave back is delivered again apart from this order: none, too.
        """
        if job.status is not JobStatus.QUEUED or job.stage is None:
            return None
        waiting = self._waiting[job.stage]
        async with waiting.looking:
            if time.monotonic() >= waiting.looked_at + FRESH_S:
                waiting.jobs, waiting.slots = await self._look(job.stage)
                waiting.looked_at = time.monotonic()
        position, typical_s = waiting.jobs.get(job.job_id), self._past_runs.typical_s(job.stage)
        if position is None:
            return None
        wait_s = round(position / waiting.slots * typical_s, 1) if waiting.slots and typical_s is not None else None
        return Place(position, wait_s)

    async def _look(self, stage: Stage) -> tuple[dict[str, int], int]:
        """The places of the first waiting jobs, and how many jobs the stage's workers take at once."""
        try:
            ids = await self._undelivered(stage)
            states = await asyncio.gather(*map(self._log.read, ids))
            workers = [worker for worker in await alive(self._bus) if worker.service == stage_durable(stage)]
        except (EventBusUnavailable, BusRefused) as error:
            log.warning("queue.unknown", stage=stage, error=str(error))
            return {}, 0
        waiting = [
            state.job_id
            for state in states
            if isinstance(state, JobRecord) and state.status is JobStatus.QUEUED and state.stage is stage
        ]
        places = {job_id: position for position, job_id in enumerate(waiting, start=1)}
        return places, sum(worker.concurrency for worker in workers)

    async def _undelivered(self, stage: Stage) -> list[str]:
        consumer = await self._bus.api(f"CONSUMER.INFO.{EVENTS}.{stage_durable(stage)}")
        feed, sequence = consumer["config"]["filter_subject"], consumer["delivered"]["stream_seq"]
        found: list[str] = []
        while len(found) < LOOKED_AT and (message := await self._bus.next_after(EVENTS, feed, sequence)):
            found.append(subjects.job_of(message.subject))
            sequence = message.sequence
        return found


class _Waiting:
    """What is known of one stage's queue."""

    def __init__(self) -> None:
        self.looking = asyncio.Lock()
        self.looked_at = -FRESH_S
        self.jobs: dict[str, int] = {}
        self.slots = 0
