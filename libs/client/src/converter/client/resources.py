"""What the gateway tells, typed. Fields that a newer gateway adds are ignored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

OVER = frozenset({"completed", "failed", "cancelled"})
"""Every status that a job does not leave again."""


class Order(Struct, frozen=True, kw_only=True):
    """What to convert, and how. What is left out is the service's choice.

    Args:
        model: an .onnx file.
        images: paths of reference images (PNG, JPEG, BMP, WebP), or of one .zip of them, or of .npy/.npz arrays.
        user_id: whose job it is; a user has one active job at a time.
        platform: the chip, `520`, `530`, `630`, `720` or `730`.
        model_id: names the model on the chip, 1..65535; those up to 32767 are the vendor's.
        version: four hex digits.
        input_shape: static shapes by input; the name may be "" for a single input.
        preprocess: a preset (`kneron`, `tensorflow`, `yolo`, `pytorch`, `caffe`, `none`), or mean and scale.
        quantization: analysis keywords.
        targets: the last stage to run, `onnx`, `bie` or `nef`.

    Raises:
        TypeError: `images` is something else than paths.
    """

    model: Path
    images: Sequence[Path] = ()
    user_id: str
    platform: str
    model_id: int
    version: str = "0001"
    input_shape: Mapping[str, Sequence[int]] = {}
    preprocess: str | Mapping[str, Any] | None = None
    quantization: Mapping[str, Any] | None = None
    targets: str | None = None

    def __post_init__(self) -> None:
        """Refuse what a type checker would: one path fails late, and what can be read only once not at all."""
        if not isinstance(self.images, Sequence) or not all(isinstance(image, Path) for image in self.images):
            raise TypeError(f"images is a list of Paths, not {self.images!r}")


class Model(Struct, frozen=True, kw_only=True):
    """The model as it was sent."""

    filename: str
    size_bytes: int
    sha256: str


class Options(Struct, frozen=True, kw_only=True):
    """How the job is converted, defaults filled in; `targets` is the last stage that it runs."""

    targets: str
    input_shape: dict[str, list[int]] = {}
    preprocess: str | dict[str, Any] = "none"
    quantization: dict[str, Any] = {}


class Timing(Struct, frozen=True, kw_only=True):
    """When a stage was reached, taken and done."""

    queued_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    duration_ms: int | None = None
    cached: bool = False


class Provenance(Struct, frozen=True, kw_only=True):
    """The signed statement of how an artifact was made."""

    filename: str
    size_bytes: int
    sha256: str


class Artifact(Struct, frozen=True, kw_only=True):
    """What a stage made; without `provenance` where the service signs nothing."""

    filename: str
    size_bytes: int
    sha256: str
    created_at: datetime
    provenance: Provenance | None = None


class Failure(Struct, frozen=True, kw_only=True):
    """Why a job or a promotion failed; `fault` is `input`, `toolchain` or `service`."""

    code: str
    message: str
    stage: str | None = None
    fault: str | None = None
    retryable: bool = False
    node: str | None = None
    op: str | None = None
    evidence: str | None = None
    hint: str | None = None


class Promotion(Struct, frozen=True, kw_only=True):
    """One upload to the file store; its status is `pending`, `completed` or `failed`."""

    promotion_id: str
    source: str
    target_object_key: str
    status: str
    at: datetime
    error: Failure | None = None


class Toolchain(Struct, frozen=True, kw_only=True):
    """What converts."""

    name: str
    version: str


class Job(Struct, frozen=True, kw_only=True):
    """A job. `progress` is of the whole of it, in 0..1; `activity` says what the stage that runs is doing."""

    job_id: str
    user_id: str
    client_id: str
    status: str
    stage: str | None = None
    progress: float = 0.0
    activity: str | None = None
    queue_position: int | None = None
    estimated_wait_s: float | None = None
    platform: str
    model_id: int
    version: str
    model: Model
    ref_images_count: int = 0
    options: Options
    stage_timings: dict[str, Timing] = {}
    artifacts: dict[str, Artifact] = {}
    promotions: list[Promotion] = []
    error: Failure | None = None
    warnings: list[str] = []
    toolchain: Toolchain | None = None
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None = None
    expires_at: datetime | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended, one way or another."""
        return self.status in OVER


class Page(Struct, frozen=True, kw_only=True):
    """Some of a user's jobs, newest first; `next_cursor` asks for those after them, where there are any."""

    items: list[Job]
    next_cursor: str | None = None


class JobEvent(Struct, frozen=True, kw_only=True):
    """What happened to a job (`job.created`, `stage.started`, …), and the job after it; none once it is deleted."""

    revision: int
    kind: str
    job: Job | None


class Progress(Struct, frozen=True, kw_only=True):
    """How far a stage is (`fraction`), and with it the job (`progress`), both in 0..1."""

    job_id: str
    stage: str
    fraction: float
    progress: float
    activity: str | None = None


class LogLine(Struct, frozen=True, kw_only=True):
    """A line that the toolchain wrote; of a stored one the time is not known."""

    stage: str
    attempt: int
    line: str
    at: datetime | None = None


class Report(Struct, frozen=True, kw_only=True):
    """By stage, what it found out about the model."""

    job_id: str
    stages: dict[str, dict[str, Any]]


class Problem(Struct, frozen=True, kw_only=True):
    """Why a job would fail."""

    code: str
    message: str
    hint: str = ""
    node: str | None = None
    op: str | None = None


class Verdict(Struct, frozen=True, kw_only=True):
    """What would become of an order. `model`, `options` and `operators` are the gateway's words, JSON."""

    valid: bool
    problems: list[Problem] = []
    warnings: list[str] = []
    model: dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    operators: dict[str, Any] | None = None
    ref_images_count: int | None = None


class Dependency(Struct, frozen=True, kw_only=True):
    """How one server answered the gateway."""

    status: str
    latency_ms: float | None = None
    error: str | None = None


class StageHealth(Struct, frozen=True, kw_only=True):
    """Who works on a stage, and how much waits for it."""

    workers: int | None = None
    queue_depth: int | None = None
    in_progress: int | None = None


class Health(Struct, frozen=True, kw_only=True):
    """`healthy`, `degraded` or `unhealthy`, and why."""

    status: str
    checked_at: datetime | None = None
    dependencies: dict[str, Dependency] = {}
    stages: dict[str, StageHealth] = {}
