"""The operators, who see every job, and the words in which the internal face tells of one."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any, ClassVar, Literal

import msgspec
from msgspec import Struct

from converter.contracts.job import TERMINAL, Artifact, JobRecord, JobStatus, Stage, StageState, StoredObject
from converter.gateway.clients.tokens import OWN_CLIENT_ID_PREFIX
from converter.gateway.representation import JobResource

OPERATORS_CLIENT_ID = f"{OWN_CLIENT_ID_PREFIX}internal"
"""Whose the jobs are that operators post. No token carries it, so the public face shows them to nobody."""


class StageOrEnd(StrEnum):
    """The status in the older words: the stage that a job waits for or runs, or how it ended."""

    ONNX = "ONNX"
    BIE = "BIE"
    NEF = "NEF"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @classmethod
    def of(cls, status: JobStatus, stage: Stage | None) -> StageOrEnd:
        """The word for a job."""
        return cls((status if status in TERMINAL else stage or "").upper())


Kind = Literal["artifact", "provenance", "report", "log"]


class JobFile(Struct, frozen=True, kw_only=True):
    """A file of a job that can be downloaded by its name."""

    filename: str
    kind: Kind
    stage: Stage
    media_type: str
    size_bytes: int
    sha256: str


class OperatorJob(JobResource, frozen=True, kw_only=True):
    """A job as operators see it. `user_id` is null for a job that they posted themselves."""

    user_id: str | None  # type: ignore[assignment]  # a client's job always has one
    status: StageOrEnd  # type: ignore[assignment]  # other words for the same
    v1_status: JobStatus
    files: tuple[JobFile, ...]


class Operators(Struct, frozen=True):
    """Whoever reaches the internal listener."""

    jobs_path: ClassVar[str] = "/jobs"
    has_users: ClassVar[bool] = False

    client_id: str = OPERATORS_CLIENT_ID
    expires_at: float = math.inf

    def sees(self, record: JobRecord) -> bool:  # noqa: ARG002 - as every caller
        """Every job."""
        return True

    def acts_for(self, user_id: str) -> bool:  # noqa: ARG002 - as every caller
        """Everybody."""
        return True

    def shown(self, record: JobRecord, resource: JobResource) -> OperatorJob:
        """The resource in the older words, with the job's files."""
        told: dict[str, Any] = msgspec.structs.asdict(resource)
        told |= {
            "user_id": resource.user_id or None,
            "status": StageOrEnd.of(resource.status, resource.stage),
            "v1_status": resource.status,
            "files": tuple(
                JobFile(
                    filename=file.filename,
                    kind=kind,
                    stage=stage,
                    media_type=file.media_type,
                    size_bytes=file.size_bytes,
                    sha256=file.sha256,
                )
                for stage, kind, file in files_of(record)
            ),
        }
        return OperatorJob(**told)


def files_of(record: JobRecord) -> list[tuple[Stage, Kind, Artifact]]:
    """What the job's stages have left, each under the name by which it is downloaded."""
    found: list[tuple[Stage, Kind, Artifact]] = []
    for stage, state in record.stages.items():
        if state.artifact:
            found.append((stage, "artifact", state.artifact))
        if state.provenance:
            found.append((stage, "provenance", state.provenance))
        if state.report:
            found.append((stage, "report", _named(state.report, f"report-{stage}.json", "application/json", state)))
        if state.log:
            found.append((stage, "log", _named(state.log, f"log-{stage}.txt", "text/plain; charset=utf-8", state)))
    return found


def _named(stored: StoredObject, filename: str, media_type: str, state: StageState) -> Artifact:
    return Artifact(
        object_key=stored.object_key,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        filename=filename,
        media_type=media_type,
        created_at=state.completed_at or "",
    )
