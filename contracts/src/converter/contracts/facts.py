"""What happens to a job. Each fact is published once, together with the record that results from it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from converter.contracts.job import (
    Artifact,
    JobError,
    JobId,
    JobRecord,
    JobRequest,
    Ordinal,
    Stage,
    StoredObject,
    Timestamp,
    Toolchain,
)


class Fact(Struct, frozen=True, kw_only=True, tag_field="type"):
    """Something that happened at `at`; the tag `type` is also the end of its subject."""

    at: Timestamp


class JobCreated(Fact, frozen=True, kw_only=True, tag="job.created"):
    """A job was accepted; its inputs are stored."""

    job_id: JobId
    request: JobRequest
    expires_at: Timestamp
    warnings: tuple[str, ...] = ()


class StageStarted(Fact, frozen=True, kw_only=True, tag="stage.started"):
    """`worker` took the stage; `attempt` counts 1, 2, 3 … for each stage of each job."""

    stage: Stage
    attempt: Ordinal
    worker: str


class StageReleased(Fact, frozen=True, kw_only=True, tag="stage.released"):
    """A draining worker gave the attempt back; it does not count against the limit."""

    stage: Stage
    attempt: Ordinal


class StageCompleted(Fact, frozen=True, kw_only=True, tag="stage.completed"):
    """The stage's artifact is stored whole. The first of these that the log accepts is the only one."""

    stage: Stage
    attempt: Ordinal
    worker: str
    artifact: Artifact
    report: StoredObject
    log: StoredObject | None = None
    toolchain: Toolchain
    warnings: tuple[str, ...] = ()
    cached: bool = False
    """No converter ran: the artifact is a copy of what an equal job of the same client made."""
    provenance: Artifact | None = None


class StageFailed(Fact, frozen=True, kw_only=True, tag="stage.failed"):
    """The stage cannot be done; the job has failed."""

    stage: Stage
    attempt: Ordinal
    error: JobError
    log: StoredObject | None = None


class JobCompleted(Fact, frozen=True, kw_only=True, tag="job.completed"):
    """Announces that every stage asked for is done."""


class JobFailed(Fact, frozen=True, kw_only=True, tag="job.failed"):
    """Announces a stage's failure, or ends an active job (its deadline)."""

    error: JobError


class JobCancelled(Fact, frozen=True, kw_only=True, tag="job.cancelled"):
    """The client ended the job."""


class JobDeleted(Fact, frozen=True, kw_only=True, tag="job.deleted"):
    """The record is gone and its objects will be. `superseded`: the job's creation never came through."""

    reason: Literal["requested", "expired", "superseded"]


class PromotionRequested(Fact, frozen=True, kw_only=True, tag="promotion.requested"):
    """The client wants an artifact in the file store before `deadline`."""

    promotion_id: str
    source: Stage
    target_object_key: str
    deadline: Timestamp


class PromotionCompleted(Fact, frozen=True, kw_only=True, tag="promotion.completed"):
    """The file store has the bytes."""

    promotion_id: str


class PromotionFailed(Fact, frozen=True, kw_only=True, tag="promotion.failed"):
    """The file store does not have them, and nothing will be uploaded for this promotion any more."""

    promotion_id: str
    code: str
    message: str


AnyFact = (
    JobCreated
    | StageStarted
    | StageReleased
    | StageCompleted
    | StageFailed
    | JobCompleted
    | JobFailed
    | JobCancelled
    | JobDeleted
    | PromotionRequested
    | PromotionCompleted
    | PromotionFailed
)


class Event(Struct, frozen=True, kw_only=True):
    """One message of the stream: what happened, and the job after it (none once it is deleted)."""

    fact: AnyFact
    job: JobRecord | None
