"""What is told while a stage runs. It is never the state: a message may be lost, and they are kept for a day."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from converter.contracts.job import Ordinal, Stage, Timestamp


class ProgressReported(Struct, frozen=True, kw_only=True):
    """How far `attempt` of `stage` is."""

    at: Timestamp
    stage: Stage
    attempt: Ordinal
    fraction: Annotated[float, Meta(ge=0, le=1)]
    activity: str
    """In a few words, what is being done."""


class LogWritten(Struct, frozen=True, kw_only=True):
    """A line that the toolchain wrote."""

    at: Timestamp
    stage: Stage
    attempt: Ordinal
    line: str


class WorkerStatus(Struct, frozen=True, kw_only=True):
    """What a worker does now; it renews this while it lives."""

    worker: str
    service: str
    since: Timestamp
    concurrency: int
    jobs: tuple[str, ...] = ()
