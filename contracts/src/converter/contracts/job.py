"""The job record: everything that is known of a job after one of its events."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Timestamp = Annotated[
    str,
    Meta(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$",
        extra_json_schema={"format": "date-time"},
        description="RFC 3339, UTC, milliseconds; sorts as text",
    ),
]
JobId = Annotated[str, Meta(extra_json_schema={"format": "uuid"}, description="a UUIDv7: sorts by time of creation")]
Count = Annotated[int, Meta(ge=0)]
Ordinal = Annotated[int, Meta(ge=1)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Platform = Literal["520", "530", "630", "720", "730"]
PresetName = Literal["kneron", "tensorflow", "yolo", "pytorch", "caffe", "none"]
Fault = Literal["input", "toolchain", "service"]
TARGET_OBJECT_KEY_MAX_BYTES = 1024
"""How long a promotion's key in the file store may be, in UTF-8."""


def timestamp(moment: datetime | None = None) -> Timestamp:
    """`moment` (default: now) as the contract writes times."""
    if moment is None:
        now_ms = time.time_ns() // 1_000_000
        return f"{_second(now_ms // 1000)}.{now_ms % 1000:03d}Z"
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@lru_cache(maxsize=1)
def _second(since_1970: int) -> str:
    return datetime.fromtimestamp(since_1970, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def moment(text: Timestamp) -> datetime:
    """The aware datetime that `text` stands for."""
    return datetime.fromisoformat(text)


class Stage(StrEnum):
    """A step of the conversion, in the order in which they run."""

    ONNX = "onnx"
    BIE = "bie"
    NEF = "nef"


STAGES: tuple[Stage, ...] = tuple(Stage)


class JobStatus(StrEnum):
    """`running` means that a worker holds an attempt; between two stages a job is `queued` again."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})


class StoredObject(Struct, frozen=True, kw_only=True):
    """Whole bytes in object storage; `sha256` is of exactly these bytes."""

    object_key: str
    size_bytes: Count
    sha256: Sha256


class Model(StoredObject, frozen=True, kw_only=True):
    """The ONNX model as the client sent it."""

    filename: str


class ReferenceSet(StoredObject, frozen=True, kw_only=True):
    """The calibration images: one stored ZIP, members in the order in which the client sent them."""

    count: Count


class Artifact(StoredObject, frozen=True, kw_only=True):
    """What a stage made."""

    filename: str
    media_type: str
    created_at: Timestamp


class Preprocess(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an image becomes the model's input: (x - mean) / scale for each channel, x in 0..255.

    Either `preset` names one of the vendor's, or `mean` and `scale` give one number, or one for each channel.
    """

    preset: PresetName | None = None
    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    channel_order: Literal["rgb", "bgr"] | None = None


class Options(Struct, frozen=True, kw_only=True):
    """How to convert, resolved: what the client left out stands here with its default."""

    last_stage: Stage = Stage.NEF
    input_shape: dict[str, tuple[int, ...]] = {}
    """Static shape by input name; the empty name stands for a model's only input."""
    preprocess: Preprocess = Preprocess(preset="kneron")
    quantization: dict[str, Any] = {}
    """The vendor's analysis keywords; one that is absent leaves the choice to the toolchain."""


class JobRequest(Struct, frozen=True, kw_only=True):
    """What was asked for; never changes."""

    client_id: str
    user_id: str
    platform: Platform
    model_id: Annotated[int, Meta(ge=1, le=65535)]
    version: Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{4}$")]
    model: Model
    ref_images: ReferenceSet | None = None
    options: Options = Options()
    request_id: str = ""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that this job runs, in order."""
        return STAGES[: STAGES.index(self.options.last_stage) + 1]


class JobError(Struct, frozen=True, kw_only=True):
    """Why a job failed. `code` is stable (see `failures`), `hint` says what to change."""

    code: str
    message: str
    fault: Fault
    retryable: bool
    hint: str
    stage: Stage | None = None
    node: str | None = None
    op: str | None = None
    evidence: str | None = None


class Toolchain(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What converted; `image_digest` is the sha256 of the container image, where one was run for each conversion."""

    name: str
    version: str
    image_digest: Sha256 | None = None


class StageState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One stage of one job.

    `attempt` numbers the attempts and names their object keys; `charged` counts those that weigh against the limit,
    so an attempt that a draining worker gave back is not in it. `worker` holds the attempt that is running.
    """

    queued_at: Timestamp | None = None
    started_at: Timestamp | None = None
    completed_at: Timestamp | None = None
    attempt: Count = 0
    charged: Count = 0
    worker: str | None = None
    cached: bool = False
    artifact: Artifact | None = None
    report: StoredObject | None = None
    log: StoredObject | None = None
    provenance: Artifact | None = None
    """The signed statement of how the artifact was made; none where the stage has no key."""


class Promotion(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One upload of an artifact to the file store. Past `deadline` it is closed as failed and nothing is uploaded."""

    promotion_id: str
    source: Stage
    target_object_key: str
    status: Literal["pending", "completed", "failed"]
    at: Timestamp
    deadline: Timestamp
    error_code: str | None = None
    error_message: str | None = None


class JobRecord(Struct, frozen=True, kw_only=True):
    """A job after its `revision`-th event. Its last event carries it, and that event is the job's state."""

    job_id: JobId
    revision: Ordinal
    request: JobRequest
    status: JobStatus
    stage: Stage | None
    """The stage that the job waits for or runs; of a failed or cancelled job the one in which it ended."""
    stages: Annotated[dict[Stage, StageState], Meta(extra_json_schema={"propertyNames": {"enum": list(STAGES)}})]
    created_at: Timestamp
    updated_at: Timestamp
    expires_at: Timestamp
    completed_at: Timestamp | None = None
    announced: bool = False
    """Whether the event that tells of the end (`job.completed`, `job.failed`) has been published."""
    promotions: tuple[Promotion, ...] = ()
    error: JobError | None = None
    warnings: tuple[str, ...] = ()
    toolchain: Toolchain | None = None

    @property
    def active(self) -> bool:
        """Whether work may still be done for this job; its user's lock is held exactly as long."""
        return self.status not in TERMINAL

    def artifact(self, stage: Stage) -> Artifact | None:
        """What `stage` made, if it has."""
        state = self.stages.get(stage)
        return state.artifact if state else None

    def provenance(self, stage: Stage) -> Artifact | None:
        """The signed statement of how that was made, if there is one."""
        state = self.stages.get(stage)
        return state.provenance if state else None
