"""Facts for tests that need a job and do not care which."""

from __future__ import annotations

from converter.contracts.facts import JobCreated, StageCompleted, StageStarted
from converter.contracts.job import (
    Artifact,
    JobRequest,
    Model,
    Options,
    Stage,
    StoredObject,
    Toolchain,
)

AT = "2026-01-01T00:00:00.000Z"
SHA = "0" * 64


def request(*, client_id: str = "client", user_id: str = "user", last_stage: Stage = Stage.NEF) -> JobRequest:
    return JobRequest(
        client_id=client_id,
        user_id=user_id,
        platform="720",
        model_id=40000,
        version="0001",
        model=Model(filename="m.onnx", object_key="jobs/j/input/model.onnx", size_bytes=1, sha256=SHA),
        options=Options(last_stage=last_stage),
    )


def created(job_id: str = "j", *, last_stage: Stage = Stage.NEF, user_id: str = "user") -> JobCreated:
    return JobCreated(at=AT, job_id=job_id, request=request(last_stage=last_stage, user_id=user_id), expires_at=AT)


def started(stage: Stage, attempt: int = 1, worker: str = "w") -> StageStarted:
    return StageStarted(at=AT, stage=stage, attempt=attempt, worker=worker)


def completed(stage: Stage, attempt: int = 1, job_id: str = "j") -> StageCompleted:
    key = f"jobs/{job_id}/{stage}/{attempt}"
    return StageCompleted(
        at=AT,
        stage=stage,
        attempt=attempt,
        worker="w",
        artifact=Artifact(
            object_key=f"{key}/artifact", size_bytes=1, sha256=SHA, filename="f", media_type="m", created_at=AT
        ),
        report=StoredObject(object_key=f"{key}/report", size_bytes=1, sha256=SHA),
        toolchain=Toolchain(name="t", version="1"),
    )
