"""The life of a job as a pure function: a state and a fact give the next state. Nothing here does I/O.

    none -- job.created --> queued <--> running --> completed | failed | cancelled -- job.deleted --> deleted
            (queued: waits for a stage's worker; running: a worker holds an attempt of the stage)

`evolve` is the whole graph. A fact that is already part of a state changes nothing, so a message may be applied twice;
a fact that cannot follow raises `IllegalTransition`, so a writer that acts on an old state is told.
"""

from __future__ import annotations

from functools import singledispatch

from msgspec import Struct
from msgspec.structs import replace

from converter.contracts.facts import (
    AnyFact,
    Fact,
    JobCancelled,
    JobCompleted,
    JobCreated,
    JobDeleted,
    JobFailed,
    PromotionCompleted,
    PromotionFailed,
    PromotionRequested,
    StageCompleted,
    StageFailed,
    StageReleased,
    StageStarted,
)
from converter.contracts.job import JobRecord, JobStatus, Promotion, Stage, StageState


class Deleted(Struct, frozen=True):
    """A job that was, or that will never be; nothing can follow."""


State = JobRecord | Deleted | None
"""`None`: nothing has happened to this job yet."""


class IllegalTransition(Exception):
    """`fact` cannot follow `state`."""

    def __init__(self, state: State, fact: Fact, why: str) -> None:
        status = state.status if isinstance(state, JobRecord) else "deleted" if state else "absent"
        super().__init__(f"{type(fact).__name__} cannot follow a job that is {status}: {why}")
        self.state, self.fact = state, fact


def evolve(state: State, fact: AnyFact) -> State:
    """The state after `fact`; `state` itself when the fact is already part of it.

    Raises:
        IllegalTransition: `fact` cannot follow `state`.
    """
    match state, fact:
        case None, JobCreated():
            return _created(fact)
        case None, JobDeleted():
            return Deleted()
        case Deleted(), JobDeleted():
            return state
        case JobRecord(), JobDeleted():
            if state.active:
                raise IllegalTransition(state, fact, "it must end before it is deleted")
            if pending(state):
                raise IllegalTransition(state, fact, "a promotion is pending")
            return Deleted()
        case JobRecord(), _:
            after = _apply(fact, state)
            return after if after is state else replace(after, revision=state.revision + 1, updated_at=fact.at)
    raise IllegalTransition(state, fact, "there is no such job")


def pending(job: JobRecord) -> tuple[Promotion, ...]:
    """The promotions that have not ended."""
    return tuple(promotion for promotion in job.promotions if promotion.status == "pending")


def _created(fact: JobCreated) -> JobRecord:
    first, *later = fact.request.stages
    return JobRecord(
        job_id=fact.job_id,
        revision=1,
        request=fact.request,
        status=JobStatus.QUEUED,
        stage=first,
        stages={first: StageState(queued_at=fact.at)} | {stage: StageState() for stage in later},
        created_at=fact.at,
        updated_at=fact.at,
        expires_at=fact.expires_at,
        warnings=fact.warnings,
    )


@singledispatch
def _apply(fact: Fact, job: JobRecord) -> JobRecord:
    raise IllegalTransition(job, fact, "this build does not know it")


@_apply.register
def _(fact: JobCreated, job: JobRecord) -> JobRecord:
    if job.request != fact.request or job.created_at != fact.at:
        raise IllegalTransition(job, fact, "another job has this id")
    return job


@_apply.register
def _(fact: StageStarted, job: JobRecord) -> JobRecord:
    state = _reached(fact, fact.stage, job)
    if fact.attempt < state.attempt or (fact.attempt == state.attempt and state.worker in (None, fact.worker)):
        return job
    _require_current(fact, fact.stage, job)
    if fact.attempt != state.attempt + 1:
        raise IllegalTransition(job, fact, f"attempt {state.attempt + 1} comes next")
    state = replace(state, attempt=fact.attempt, charged=state.charged + 1, worker=fact.worker, started_at=fact.at)
    return _with_stage(replace(job, status=JobStatus.RUNNING), fact.stage, state)


@_apply.register
def _(fact: StageReleased, job: JobRecord) -> JobRecord:
    state = _reached(fact, fact.stage, job)
    if fact.attempt < state.attempt or (fact.attempt == state.attempt and state.worker is None):
        return job
    _require_holder(fact, fact.stage, fact.attempt, job)
    released = replace(state, charged=state.charged - 1, worker=None, started_at=None)
    return _with_stage(replace(job, status=JobStatus.QUEUED), fact.stage, released)


@_apply.register
def _(fact: StageCompleted, job: JobRecord) -> JobRecord:
    state = _reached(fact, fact.stage, job)
    if state.artifact == fact.artifact:
        return job
    _require_holder(fact, fact.stage, fact.attempt, job)
    done = replace(
        state,
        worker=None,
        completed_at=fact.at,
        cached=fact.cached,
        artifact=fact.artifact,
        report=fact.report,
        log=fact.log,
        provenance=fact.provenance,
    )
    job = _with_stage(
        replace(job, toolchain=fact.toolchain, warnings=(*job.warnings, *fact.warnings)), fact.stage, done
    )
    later = job.request.stages[job.request.stages.index(fact.stage) + 1 :]
    if later:
        job = replace(job, status=JobStatus.QUEUED, stage=later[0])
        return _with_stage(job, later[0], StageState(queued_at=fact.at))
    return replace(job, status=JobStatus.COMPLETED, stage=None, completed_at=fact.at)


@_apply.register
def _(fact: StageFailed, job: JobRecord) -> JobRecord:
    if job.status is JobStatus.FAILED and job.error == fact.error:
        return job
    _require_current(fact, fact.stage, job)
    state = job.stages[fact.stage]
    if fact.attempt != state.attempt:
        raise IllegalTransition(job, fact, f"attempt {state.attempt} holds the stage")
    job = _with_stage(job, fact.stage, replace(state, worker=None, completed_at=fact.at, log=fact.log))
    return replace(job, status=JobStatus.FAILED, error=fact.error, completed_at=fact.at)


@_apply.register
def _(fact: JobCompleted, job: JobRecord) -> JobRecord:
    if job.status is not JobStatus.COMPLETED:
        raise IllegalTransition(job, fact, "its last stage has not completed")
    return job if job.announced else replace(job, announced=True)


@_apply.register
def _(fact: JobFailed, job: JobRecord) -> JobRecord:
    if job.active:
        job = _without_worker(job)
        return replace(job, status=JobStatus.FAILED, error=fact.error, completed_at=fact.at, announced=True)
    if job.status is not JobStatus.FAILED:
        raise IllegalTransition(job, fact, "it ended otherwise")
    return job if job.announced else replace(job, announced=True)


@_apply.register
def _(fact: JobCancelled, job: JobRecord) -> JobRecord:
    if job.status is JobStatus.CANCELLED:
        return job
    if not job.active:
        raise IllegalTransition(job, fact, "it has ended")
    return replace(_without_worker(job), status=JobStatus.CANCELLED, completed_at=fact.at, announced=True)


@_apply.register
def _(fact: PromotionRequested, job: JobRecord) -> JobRecord:
    if any(promotion.promotion_id == fact.promotion_id for promotion in job.promotions):
        return job
    if job.status is not JobStatus.COMPLETED:
        raise IllegalTransition(job, fact, "only a completed job can be promoted")
    if job.artifact(fact.source) is None:
        raise IllegalTransition(job, fact, f"{fact.source} has made nothing")
    if any(promotion.target_object_key == fact.target_object_key for promotion in pending(job)):
        raise IllegalTransition(job, fact, "a promotion to this key is pending")
    requested = Promotion(
        promotion_id=fact.promotion_id,
        source=fact.source,
        target_object_key=fact.target_object_key,
        status="pending",
        at=fact.at,
        deadline=fact.deadline,
    )
    return replace(job, promotions=(*_recent(job.promotions), requested))


@_apply.register
def _(fact: PromotionCompleted, job: JobRecord) -> JobRecord:
    return _promotion_ended(fact, job, "completed")


@_apply.register
def _(fact: PromotionFailed, job: JobRecord) -> JobRecord:
    return _promotion_ended(fact, job, "failed", error_code=fact.code, error_message=fact.message)


def _promotion_ended(
    fact: PromotionCompleted | PromotionFailed, job: JobRecord, status: str, **error: str
) -> JobRecord:
    for index, promotion in enumerate(job.promotions):
        if promotion.promotion_id != fact.promotion_id:
            continue
        if promotion.status == status:
            return job
        if promotion.status != "pending":
            raise IllegalTransition(job, fact, f"the promotion has {promotion.status}")
        ended = replace(promotion, status=status, at=fact.at, **error)
        return replace(job, promotions=(*job.promotions[:index], ended, *job.promotions[index + 1 :]))
    raise IllegalTransition(job, fact, "no such promotion")


PROMOTIONS_KEPT = 20
"""Ended promotions that a record keeps; more would push it towards the size limit of a message."""


def _recent(promotions: tuple[Promotion, ...]) -> tuple[Promotion, ...]:
    ended = [promotion for promotion in promotions if promotion.status != "pending"]
    forgotten = {promotion.promotion_id for promotion in ended[: max(0, len(ended) - PROMOTIONS_KEPT + 1)]}
    return tuple(promotion for promotion in promotions if promotion.promotion_id not in forgotten)


def _reached(fact: Fact, stage: Stage, job: JobRecord) -> StageState:
    state = job.stages.get(stage)
    if state is None:
        raise IllegalTransition(job, fact, f"{stage} is not among its stages")
    return state


def _require_current(fact: Fact, stage: Stage, job: JobRecord) -> None:
    if not job.active:
        raise IllegalTransition(job, fact, "it has ended")
    if job.stage is not stage:
        raise IllegalTransition(job, fact, f"it is at {job.stage}")


def _require_holder(fact: Fact, stage: Stage, attempt: int, job: JobRecord) -> None:
    _require_current(fact, stage, job)
    state = job.stages[stage]
    if state.worker is None or state.attempt != attempt:
        raise IllegalTransition(job, fact, f"attempt {attempt} does not hold the stage")


def _with_stage(job: JobRecord, stage: Stage, state: StageState) -> JobRecord:
    return replace(job, stages=job.stages | {stage: state})


def _without_worker(job: JobRecord) -> JobRecord:
    if job.stage is None:
        return job
    return _with_stage(job, job.stage, replace(job.stages[job.stage], worker=None))
