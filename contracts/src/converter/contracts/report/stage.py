"""What the report of every stage has: what converted, for what, how long it took and what the kernel granted."""

from __future__ import annotations

from msgspec import Struct

from converter.contracts.job import Platform, Sha256, Stage


class Obtained(Struct, frozen=True, kw_only=True):
    """What the kernel really granted. The process group, the limits and the clean environment are never missing."""

    landlock_abi: int
    """0: this kernel has no Landlock, so files are protected by their permissions alone."""
    tcp_denied: bool
    signals_scoped: bool
    """Whether signals to processes outside are denied by Landlock."""
    seccomp: bool
    capabilities_dropped: bool
    uid: int


class Run(Struct, frozen=True, kw_only=True):
    """What was measured, however it ended."""

    duration_s: float = 0.0
    peak_memory_bytes: int = 0
    isolation: Obtained | None = None
    """None if the process ended before it could say."""


class ReportedToolchain(Struct, frozen=True, kw_only=True):
    """What converted, and the libraries that decide its results."""

    name: str
    version: str
    libraries: dict[str, str] = {}


class Target(Struct, frozen=True, kw_only=True):
    """What the artifact is for; `version` is four hex digits in lower case."""

    platform: Platform
    model_id: int
    version: str


class Latency(Struct, frozen=True, kw_only=True):
    """How long one run takes on the worker's CPU, which says nothing of the chip: percentiles over `runs`."""

    p50: float
    p95: float
    runs: int


class Timings(Struct, frozen=True, kw_only=True):
    """What differs between two equal runs. `steps_seconds` is by step of the ladder, `latency_ms` of the package."""

    seconds: dict[str, float]
    peak_memory_bytes: int
    steps_seconds: dict[str, float] = {}
    latency_ms: Latency | None = None


class FileFacts(Struct, frozen=True, kw_only=True):
    """A file; `name` is what the toolchain called it, where it has a say."""

    size_bytes: int
    sha256: Sha256
    name: str | None = None


class StageReport(Struct, frozen=True, kw_only=True):
    """What every stage reports. `run` is what the warden around the converter measured."""

    stage: Stage
    toolchain: ReportedToolchain
    target: Target | None = None
    notice: str | None = None
    warnings: tuple[str, ...]
    timings: Timings
    run: Run
