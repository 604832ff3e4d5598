"""What a conversion may use, and the ways in which it ends."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from msgspec import Struct

from converter.common.conversion import Conversion
from converter.contracts.failures import job_error
from converter.contracts.job import JobError, Stage
from converter.contracts.report.stage import Run

MIB = 1 << 20


class Limits(Struct, frozen=True, kw_only=True):
    """What one conversion may use. The warden watches time and memory; the rest is the kernel's to enforce."""

    timeout_s: float
    """Wall time."""
    memory_mb: int
    """MiB of resident memory of the converter and every process that it starts, together."""
    cpu_s: int | None = None
    """CPU time of each process; without it, `timeout_s` on every core."""
    file_size_bytes: int = 4 << 30
    open_files: int = 256
    log_bytes: int = 8 * MIB
    """How much of the log is kept."""


class Confinement(Struct, frozen=True, kw_only=True):
    """What converters may reach beyond the Python installation (to read) and their work directory (to write)."""

    sources: tuple[Path, ...] = ()
    """Directories to import converters from, before the installed packages."""
    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    may_execute: bool = False
    """Whether programs may be run: a vendor's toolchain is made of them."""
    may_open_sockets: bool = False
    """Whether local sockets may be opened, as the client of a container engine must. TCP stays with Landlock."""
    environment: dict[str, str] = {}
    """Variables that the converter's process has besides the few that every one has."""


class Converted(Struct, frozen=True):
    """It worked. The artifact is a regular file in the work directory."""

    run: Run
    conversion: Conversion


class Refused(Struct, frozen=True, kw_only=True):
    """The converter said no, or raised what it should not have (then the code is `conversion_failed`)."""

    run: Run
    code: str
    message: str
    node: str | None = None
    op: str | None = None
    evidence: str | None = None
    hint: str | None = None


class TimedOut(Struct, frozen=True):
    """It was killed for the time that it took."""

    run: Run
    limit_s: float


class OutOfMemory(Struct, frozen=True):
    """It used more memory than it may, was refused more, or was chosen by the kernel when there was no more."""

    run: Run
    limit_mb: int
    evidence: str | None = None


class Crashed(Struct, frozen=True, kw_only=True):
    """It ended without a result that can be used. Exactly one of the three facts says how."""

    run: Run
    signal: str | None = None
    """Such as "SIGSEGV"."""
    exit_code: int | None = None
    broken: str | None = None
    """What was wrong with what it left or said."""


class Cancelled(Struct, frozen=True):
    """It was killed because it was asked to be."""

    run: Run


Failed = Refused | TimedOut | OutOfMemory | Crashed
Outcome = Converted | Failed | Cancelled


def failure(outcome: Failed, stage: Stage) -> JobError:
    """The error that a job carries when `stage` ended so."""
    match outcome:
        case Refused():
            return job_error(
                outcome.code,
                outcome.message,
                stage=stage,
                node=outcome.node,
                op=outcome.op,
                evidence=outcome.evidence,
                hint=outcome.hint,
            )
        case TimedOut():
            return job_error(
                "stage_timeout", f"The conversion ran out of time; it may take {outcome.limit_s:g} s.", stage=stage
            )
        case OutOfMemory():
            message = f"The conversion ran out of memory; it may use {outcome.limit_mb} MiB."
            return job_error("stage_out_of_memory", message, stage=stage, evidence=outcome.evidence)
        case Crashed(signal=str(name)):
            message = f"The conversion's process died of {name}."
        case Crashed(exit_code=int(code)):
            message = f"The conversion's process left with status {code} and without a result."
        case Crashed():
            message = f"The conversion's process cannot be trusted: {outcome.broken}."
        case _:
            assert_never(outcome)
    return job_error("stage_crashed", message, stage=stage)
