"""What the stage `nef` reports: what was packaged or compiled, and how it was verified."""

from __future__ import annotations

from msgspec import Struct

from converter.contracts.job import Sha256
from converter.contracts.report.bie import Figures
from converter.contracts.report.stage import FileFacts, StageReport


class SelfTest(Struct, frozen=True, kw_only=True):
    """Whether the finished package still answers its own sample as it did, by output."""

    process: str
    tolerance: float
    passed: bool
    as_written: dict[str, Figures]
    kernels: dict[str, Figures]


class NamedModel(Struct, frozen=True, kw_only=True):
    """A model in a NEF, as the file writes it."""

    name: str
    id: int
    version: str


class NefFacts(Struct, frozen=True, kw_only=True):
    """What the vendor's compiled file says of itself. `chips` is what `target` can mean: it was counted in two ways."""

    platform: str
    target: int
    chips: tuple[str, ...]
    schema: str
    encryption_mode: int
    compiler_version: str
    toolchain_version: str
    models: tuple[NamedModel, ...]
    models_bytes: int


class NefReport(StageReport, frozen=True, kw_only=True):
    """The stage `nef`: what was packaged or compiled, and how it was verified."""

    bie_sha256: Sha256
    result: FileFacts | None = None
    self_test: SelfTest | None = None
    nef: NefFacts | None = None
