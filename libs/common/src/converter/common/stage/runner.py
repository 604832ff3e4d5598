"""Acts on a stage's messages: whatever the job's state asks for, until nothing is left to do here."""

from __future__ import annotations

import time

import msgspec
import structlog

from converter.common import tracing
from converter.common.bus import Delivery
from converter.common.consumer import Rejected, Released, Transient
from converter.common.disk import is_full
from converter.common.eventlog import JobLog, Revision, revision_in
from converter.common.failpoint import failpoint
from converter.common.lifecycle import IllegalTransition, State
from converter.common.metrics import ATTEMPT_SECONDS, ATTEMPTS_RUNNING
from converter.common.stage.attempt import Bench, Interrupted
from converter.common.stage.policy import (
    Announce,
    GiveUp,
    Held,
    Plan,
    Settled,
    Work,
    plan,
    waits_for,
)
from converter.common.storage import StorageUnavailable
from converter.common.workers import Presence, is_alive
from converter.contracts import subjects
from converter.contracts.facts import JobCompleted, JobFailed, StageCompleted, StageFailed, StageReleased, StageStarted
from converter.contracts.failures import job_error
from converter.contracts.job import JobRecord, timestamp

log = structlog.get_logger()

HELD_DELAY_S = 2.0
"""How long a message waits whose attempt a living worker holds."""


class StageRunner:
    """One worker of a stage; `handle` is its consumer's handler.

    Args:
        bench: does the work.
        job_log: the jobs.
        presence: this worker.
    """

    def __init__(self, bench: Bench, job_log: JobLog, presence: Presence) -> None:
        self._bench, self._log, self._presence = bench, job_log, presence
        self._stage = bench.spec.stage

    async def handle(self, delivery: Delivery) -> None:
        """Do what the message's job needs from this stage.

        Raises:
            Transient: somebody else is at it, or a server is away.
            Released: the worker drains.
            Rejected: it is no event of a job.
        """
        try:
            job_id = subjects.job_of(delivery.subject)
            revision = revision_in(delivery)
        except (ValueError, msgspec.MsgspecError) as error:
            raise Rejected(f"no event: {error}") from error
        if job_id in self._presence.jobs:
            raise Transient("this worker is already at it", delay_s=HELD_DELAY_S)
        with self._presence.working_on(job_id), structlog.contextvars.bound_contextvars(job_id=job_id):
            failpoint("before", "state")
            # A message that is delivered for the first time and asks for work carries the job's state. If that is out
            # of date by now, the log refuses the start that is decided from it.
            if delivery.deliveries > 1 or not isinstance(self._plan(revision), Work):
                revision = await self._log.last(job_id)
            failpoint("after", "state")
            await self._bring_forward(job_id, revision)

    def _plan(self, revision: Revision, gone: frozenset[str] = frozenset()) -> Plan:
        return plan(revision.state, self._stage, max_attempts=self._bench.settings.stage_max_attempts, gone=gone)

    async def _bring_forward(self, job_id: str, revision: Revision) -> None:
        # `handle` lets no job in that this worker is at, so an attempt of it that the record has as open is over.
        gone = frozenset({self._presence.worker})
        while True:
            match self._plan(revision, gone):
                case Settled():
                    return
                case Announce(fact):
                    revision = await self._announce(job_id, revision, fact)
                case Held(worker):
                    if await is_alive(self._bench.bus, worker):
                        raise Transient(f"{worker} holds it", delay_s=HELD_DELAY_S)
                    gone |= {worker}
                case GiveUp() as given_up:
                    revision = await self._give_up(job_id, revision, given_up)
                case Work(attempt):
                    revision = await self._work(job_id, revision, attempt)

    async def _announce(self, job_id: str, revision: Revision, fact: JobCompleted | JobFailed) -> Revision:
        failpoint("before", "announce")
        announced = await self._log.append_after(job_id, revision, fact)
        failpoint("after", "announce")
        return announced or await self._log.last(job_id)

    async def _work(self, job_id: str, revision: Revision, attempt: int) -> Revision:
        """Take the stage and do it; what the job is then."""
        failpoint("before", "start")
        start = StageStarted(at=timestamp(), stage=self._stage, attempt=attempt, worker=self._presence.worker)
        started = await self._log.append_after(job_id, revision, start)
        failpoint("after", "start")
        if started is None or not isinstance(started.state, JobRecord):
            return await self._log.last(job_id)
        job = started.state
        log.info("stage.started", stage=self._stage, attempt=attempt)
        try:
            fact = await self._attempt(job, attempt)
        except StorageUnavailable as error:
            await self._release(job_id, attempt)
            raise Transient(str(error)) from error
        except OSError as fault:
            if not is_full(fault):
                raise
            # The job is as good as it was: it waits until there is room, here or at another worker.
            await self._release(job_id, attempt)
            raise Transient(f"no room for an attempt: {fault}") from fault
        if fact is None:
            return await self._interrupted(job_id, attempt)
        revision = await self._publish(job_id, started, fact)
        if _is_own_work(fact, revision.state):
            await self._bench.cache.note(job)
        return revision

    async def _attempt(self, job: JobRecord, attempt: int) -> StageCompleted | StageFailed | None:
        """The bench's attempt, measured; none if it was interrupted, which is no error of the attempt's.

        Raises:
            StorageUnavailable, OSError: as the bench does.
        """
        fact: StageCompleted | StageFailed | None = None
        began_at, outcome = time.monotonic(), "failed"
        try:
            with (
                ATTEMPTS_RUNNING.labels(self._stage).track_inprogress(),
                tracing.span(f"{self._stage} attempt", job_id=job.job_id, attempt=attempt) as span,
            ):
                try:
                    fact = await self._bench.attempt(job, attempt, self._presence.worker)
                    outcome = _outcome(fact)
                except Interrupted:
                    outcome = "interrupted"
                span.set_attribute("outcome", outcome)
        except StorageUnavailable:
            outcome = "storage_unavailable"
            raise
        except OSError as fault:
            outcome = "no_room" if is_full(fault) else outcome
            raise
        finally:
            ATTEMPT_SECONDS.labels(self._stage, outcome).observe(time.monotonic() - began_at)
        return fact

    async def _publish(self, job_id: str, last: Revision, fact: StageCompleted | StageFailed) -> Revision:
        failpoint("before", "publish")
        try:
            revision = await self._log.append_after(job_id, last, fact)
            if revision is None:  # somebody wrote first: the job's end, which refuses the fact, or what is no event
                await self._log.append(job_id, lambda _: fact)
                revision = await self._log.last(job_id)
        except IllegalTransition as fenced:
            log.warning("stage.fenced", stage=self._stage, attempt=fact.attempt, error=str(fenced))
            return await self._log.last(job_id)
        failpoint("after", "publish")
        if isinstance(fact, StageFailed):
            log.warning("stage.failed", stage=self._stage, attempt=fact.attempt, code=fact.error.code)
        else:
            made = fact.artifact
            log.info(
                "stage.completed",
                stage=self._stage,
                attempt=fact.attempt,
                size_bytes=made.size_bytes,
                cached=fact.cached,
            )
        return revision

    async def _give_up(self, job_id: str, revision: Revision, given_up: GiveUp) -> Revision:
        attempt = given_up.attempt
        message = f"{given_up.charged} attempts at {self._stage} ended without a result, the worker with them"
        error = job_error("stage_crashed", message, stage=self._stage)
        failed = StageFailed(at=timestamp(), stage=self._stage, attempt=attempt, error=error)
        return await self._publish(job_id, revision, failed)

    async def _interrupted(self, job_id: str, attempt: int) -> Revision:
        """The job, where nothing is left to do at this stage.

        Raises:
            Released: the stage is still to be done: this worker drains, or another one has taken it.
        """
        state = await self._release(job_id, attempt)
        if waits_for(state, self._stage):
            raise Released
        return await self._log.last(job_id)

    async def _release(self, job_id: str, attempt: int) -> State:
        def release(state: State) -> StageReleased | None:
            if not waits_for(state, self._stage):
                return None
            return StageReleased(at=timestamp(), stage=self._stage, attempt=attempt)

        try:
            return await self._log.append(job_id, release)
        except IllegalTransition:
            return await self._log.read(job_id)


def _outcome(fact: StageCompleted | StageFailed) -> str:
    """As the metrics name it."""
    if isinstance(fact, StageFailed):
        return fact.error.code
    return "reused" if fact.cached else "completed"


def _is_own_work(fact: StageCompleted | StageFailed, state: State) -> bool:
    """Whether the log took `fact`, and a converter ran for it."""
    if not isinstance(fact, StageCompleted) or fact.cached or not isinstance(state, JobRecord):
        return False
    return state.artifact(fact.stage) == fact.artifact
