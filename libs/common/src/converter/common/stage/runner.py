"""Acts on a stage's messages: whatever the job's state asks for, until nothing is left to do here."""

from __future__ import annotations

import structlog

from converter.common.bus import Bus, Delivery
from converter.common.consumer import Rejected, Released, Transient
from converter.common.eventlog import JobLog
from converter.common.failpoint import failpoint
from converter.common.lifecycle import IllegalTransition, State
from converter.common.stage.attempt import Bench, Interrupted
from converter.common.stage.policy import (
    Announce,
    GiveUp,
    Held,
    Settled,
    Work,
    announcement,
    plan,
)
from converter.common.storage import StorageUnavailable
from converter.common.workers import Presence, is_alive
from converter.contracts import subjects
from converter.contracts.facts import StageCompleted, StageFailed, StageReleased, StageStarted
from converter.contracts.failures import job_error
from converter.contracts.job import JobRecord, Stage, timestamp

log = structlog.get_logger()

HELD_DELAY_S = 2.0
"""How long a message waits whose attempt a living worker holds."""


class StageRunner:
    """One worker of a stage; `handle` is its consumer's handler.

    Args:
        stage: which.
        bus: tells which workers live.
        job_log: the jobs.
        bench: does the work.
        presence: this worker.
        max_attempts: how many attempts may end their worker.
    """

    def __init__(
        self, stage: Stage, *, bus: Bus, job_log: JobLog, bench: Bench, presence: Presence, max_attempts: int
    ) -> None:
        self._stage, self._bus, self._log, self._bench = stage, bus, job_log, bench
        self._presence, self._max_attempts = presence, max_attempts

    async def handle(self, delivery: Delivery) -> None:
        """Do what the message's job needs from this stage.

        Raises:
            Transient: somebody else is at it, or a server is away.
            Released: the worker drains.
            Rejected: the subject names no job.
        """
        try:
            job_id = subjects.job_of(delivery.subject)
        except ValueError as error:
            raise Rejected(str(error)) from error
        if job_id in self._presence.jobs:
            raise Transient("this worker is already at it", delay_s=HELD_DELAY_S)
        with self._presence.working_on(job_id), structlog.contextvars.bound_contextvars(job_id=job_id):
            await self._bring_forward(job_id)

    async def _bring_forward(self, job_id: str) -> None:
        # What this process held when it last had the message, it holds no more.
        gone = frozenset({self._presence.worker})
        failpoint("before", "state")
        state = await self._log.read(job_id)
        failpoint("after", "state")
        while True:
            match plan(state, self._stage, max_attempts=self._max_attempts, gone=gone):
                case Settled():
                    return
                case Announce():
                    failpoint("before", "announce")
                    state = await self._log.append(job_id, announcement)
                    failpoint("after", "announce")
                case Held(worker):
                    if await is_alive(self._bus, worker):
                        raise Transient(f"{worker} holds it", delay_s=HELD_DELAY_S)
                    gone |= {worker}
                case GiveUp() as given_up:
                    state = await self._give_up(job_id, given_up)
                case Work(attempt):
                    state = await self._work(job_id, attempt, gone)

    async def _work(self, job_id: str, attempt: int, gone: frozenset[str]) -> State:
        """Take the stage and do it; the state that came of it."""
        intention = Work(attempt)

        def start(state: State) -> StageStarted:
            if plan(state, self._stage, max_attempts=self._max_attempts, gone=gone) != intention:
                raise _OvertakenError
            return StageStarted(at=timestamp(), stage=self._stage, attempt=attempt, worker=self._presence.worker)

        failpoint("before", "start")
        try:
            job = await self._log.append(job_id, start)
        except _OvertakenError:
            return await self._log.read(job_id)
        failpoint("after", "start")
        if not isinstance(job, JobRecord):
            return job
        log.info("stage.started", stage=self._stage, attempt=attempt)
        try:
            fact = await self._bench.attempt(job, attempt, self._presence.worker)
        except Interrupted:
            return await self._interrupted(job_id, attempt)
        except StorageUnavailable as error:
            await self._release(job_id, attempt)
            raise Transient(str(error)) from error
        return await self._publish(job_id, fact)

    async def _publish(self, job_id: str, fact: StageCompleted | StageFailed) -> State:
        failpoint("before", "publish")
        try:
            state = await self._log.append(job_id, lambda _: fact)
        except IllegalTransition as fenced:
            log.warning("stage.fenced", stage=self._stage, attempt=fact.attempt, error=str(fenced))
            return await self._log.read(job_id)
        failpoint("after", "publish")
        if isinstance(fact, StageFailed):
            log.warning("stage.failed", stage=self._stage, attempt=fact.attempt, code=fact.error.code)
        else:
            log.info("stage.completed", stage=self._stage, attempt=fact.attempt, size_bytes=fact.artifact.size_bytes)
        return state

    async def _give_up(self, job_id: str, given_up: GiveUp) -> State:
        attempt = given_up.attempt
        message = f"{given_up.charged} attempts at {self._stage} ended without a result, the worker with them"
        error = job_error("stage_crashed", message, stage=self._stage)
        return await self._publish(job_id, StageFailed(at=timestamp(), stage=self._stage, attempt=attempt, error=error))

    async def _interrupted(self, job_id: str, attempt: int) -> State:
        """Either the attempt has lost its stage, which the state tells, or the worker drains and gives it back."""
        state = await self._release(job_id, attempt)
        if isinstance(state, JobRecord) and state.active and state.stage is self._stage:
            raise Released
        return state

    async def _release(self, job_id: str, attempt: int) -> State:
        def release(state: State) -> StageReleased | None:
            mine = isinstance(state, JobRecord) and state.active and state.stage is self._stage
            return StageReleased(at=timestamp(), stage=self._stage, attempt=attempt) if mine else None

        try:
            return await self._log.append(job_id, release)
        except IllegalTransition:
            return await self._log.read(job_id)


class _OvertakenError(Exception):
    """Another worker changed the job between the plan and the start."""
