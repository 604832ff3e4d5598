"""What clients see of a job: the record without its keys, in the words of the HTTP contract."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from converter.contracts.job import (
    Artifact,
    JobError,
    JobRecord,
    JobStatus,
    Options,
    Preprocess,
    Promotion,
    Stage,
    StageState,
    Timestamp,
    Toolchain,
    moment,
)


class ModelResource(Struct, frozen=True, kw_only=True):
    """The model as it was sent."""

    filename: str
    size_bytes: int
    sha256: str


class OptionsResource(Struct, frozen=True, kw_only=True):
    """The resolved options, each under the name of the form field that sets it; of `quantization` what was given."""

    targets: Stage
    input_shape: dict[str, tuple[int, ...]]
    preprocess: str | dict[str, Any]
    quantization: dict[str, Any]


class StageTiming(Struct, frozen=True, kw_only=True):
    """When a stage was reached, taken and done; `duration_ms` is of the attempt that ended it."""

    queued_at: Timestamp | None
    started_at: Timestamp | None
    completed_at: Timestamp | None
    duration_ms: int | None
    cached: bool


class ProvenanceResource(Struct, frozen=True, kw_only=True):
    """The signed statement of how an artifact was made; a download link gives its bytes."""

    filename: str
    size_bytes: int
    sha256: str


class ArtifactResource(Struct, frozen=True, kw_only=True):
    """What a stage made; without `provenance` where the service signs nothing."""

    filename: str
    size_bytes: int
    sha256: str
    created_at: Timestamp
    provenance: ProvenanceResource | None


class PromotionFailure(Struct, frozen=True, kw_only=True):
    """Why a promotion failed; the code is one of the error table."""

    code: str
    message: str


class PromotionResource(Struct, frozen=True, kw_only=True):
    """One upload to the file store."""

    promotion_id: str
    source: Stage
    target_object_key: str
    status: str
    at: Timestamp
    error: PromotionFailure | None


class ErrorResource(Struct, frozen=True, kw_only=True):
    """Why a job failed."""

    code: str
    message: str
    stage: Stage | None
    fault: str
    retryable: bool
    node: str | None
    op: str | None
    evidence: str | None
    hint: str


class JobResource(Struct, frozen=True, kw_only=True):
    """A job. `progress` is of the whole job, in 0..1; `activity` says what the stage that runs is doing."""

    job_id: str
    user_id: str
    client_id: str
    status: JobStatus
    stage: Stage | None
    progress: float
    activity: str | None
    queue_position: int | None
    estimated_wait_s: float | None
    platform: str
    model_id: int
    version: str
    model: ModelResource
    ref_images_count: int
    options: OptionsResource
    stage_timings: dict[Stage, StageTiming]
    artifacts: dict[Stage, ArtifactResource]
    promotions: tuple[PromotionResource, ...]
    error: ErrorResource | None
    warnings: tuple[str, ...]
    toolchain: Toolchain | None
    created_at: Timestamp
    updated_at: Timestamp
    completed_at: Timestamp | None
    expires_at: Timestamp


class JobPage(Struct, frozen=True, kw_only=True):
    """Some of a user's jobs, newest first; `next_cursor` asks for those after them, where there are any."""

    items: tuple[JobResource, ...]
    next_cursor: str | None


def options_resource(options: Options) -> OptionsResource:
    """The public form of `options`."""
    return OptionsResource(
        targets=options.last_stage,
        input_shape=options.input_shape,
        preprocess=_preprocess(options.preprocess),
        quantization=options.quantization,
    )


def job_resource(
    record: JobRecord,
    stage_progress: float | None,
    *,
    activity: str | None = None,
    queue_position: int | None = None,
    estimated_wait_s: float | None = None,
    unattended: bool = False,
) -> JobResource:
    """The public form of `record`, with what the record does not say where that is known.

    Args:
        record: the job.
        stage_progress: how far its current stage is, in 0..1.
        activity: what that stage is doing.
        queue_position: 1 for the job that is taken next.
        estimated_wait_s: how long until it is taken, from past runs.
        unattended: whether no worker is there for the stage that it waits for.
    """
    request = record.request
    return JobResource(
        job_id=record.job_id,
        user_id=request.user_id,
        client_id=request.client_id,
        status=record.status,
        stage=record.stage,
        progress=progress(record, stage_progress),
        activity=activity,
        queue_position=queue_position,
        estimated_wait_s=estimated_wait_s,
        platform=request.platform,
        model_id=request.model_id,
        version=request.version,
        model=ModelResource(
            filename=request.model.filename, size_bytes=request.model.size_bytes, sha256=request.model.sha256
        ),
        ref_images_count=request.ref_images.count if request.ref_images else 0,
        options=options_resource(request.options),
        stage_timings={stage: _timing(state) for stage, state in record.stages.items() if state.queued_at},
        artifacts={
            stage: _artifact(state.artifact, state.provenance)
            for stage, state in record.stages.items()
            if state.artifact
        },
        promotions=tuple(promotion_resource(promotion) for promotion in record.promotions),
        error=_error(record.error) if record.error else None,
        warnings=(*record.warnings, *((no_worker(record.stage),) if unattended and record.stage else ())),
        toolchain=record.toolchain,
        created_at=record.created_at,
        updated_at=record.updated_at,
        completed_at=record.completed_at,
        expires_at=record.expires_at,
    )


def no_worker(stage: Stage) -> str:
    """The warning of a job that waits for `stage` while no worker is there; the same words as long as that holds."""
    return f"No worker of the stage {stage} is running; the job waits until there is one."


def progress(record: JobRecord, stage_progress: float | None) -> float:
    """How much of the job is done: whole stages, and of the one that runs the part that it tells."""
    if record.status is JobStatus.COMPLETED:
        return 1.0
    done = sum(state.artifact is not None for state in record.stages.values())
    current = min(max(stage_progress or 0.0, 0.0), 1.0) if record.status is JobStatus.RUNNING else 0.0
    return round((done + current) / len(record.stages), 3)


def promotion_resource(promotion: Promotion) -> PromotionResource:
    """The public form of `promotion`."""
    failed = promotion.status == "failed"
    return PromotionResource(
        promotion_id=promotion.promotion_id,
        source=promotion.source,
        target_object_key=promotion.target_object_key,
        status=promotion.status,
        at=promotion.at,
        error=PromotionFailure(code=promotion.error_code or "", message=promotion.error_message or "")
        if failed
        else None,
    )


def _preprocess(preprocess: Preprocess) -> str | dict[str, Any]:
    if preprocess.preset:
        return preprocess.preset
    read: dict[str, Any] = msgspec.to_builtins(preprocess)
    return read


def _timing(state: StageState) -> StageTiming:
    duration_ms = None
    if state.started_at and state.completed_at:
        duration_ms = round((moment(state.completed_at) - moment(state.started_at)).total_seconds() * 1000)
    return StageTiming(
        queued_at=state.queued_at,
        started_at=state.started_at,
        completed_at=state.completed_at,
        duration_ms=duration_ms,
        cached=state.cached,
    )


def _artifact(artifact: Artifact, provenance: Artifact | None) -> ArtifactResource:
    return ArtifactResource(
        filename=artifact.filename,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
        created_at=artifact.created_at,
        provenance=ProvenanceResource(
            filename=provenance.filename, size_bytes=provenance.size_bytes, sha256=provenance.sha256
        )
        if provenance
        else None,
    )


def _error(error: JobError) -> ErrorResource:
    return ErrorResource(
        code=error.code,
        message=error.message,
        stage=error.stage,
        fault=error.fault,
        retryable=error.retryable,
        node=error.node,
        op=error.op,
        evidence=error.evidence,
        hint=error.hint,
    )
