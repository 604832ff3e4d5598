"""Decides how a conversion ended, from what the warden saw and what the converter said."""

from __future__ import annotations

import signal
import stat
from pathlib import Path

import msgspec
from msgspec import Struct

from converter.common.conversion import Conversion
from converter.common.isolation.messages import Declined, Ended, Exhausted, Finished, Result
from converter.common.isolation.outcomes import (
    Cancelled,
    Converted,
    Crashed,
    Limits,
    Outcome,
    OutOfMemory,
    Refused,
    TimedOut,
)
from converter.contracts.failures import FAILURES
from converter.contracts.report.stage import Obtained, Run


class Heard(Struct):
    """What came out of a converter's process. It may have read a hostile model, so nothing here is true by itself."""

    obtained: Obtained | None = None
    result: Result | None = None
    broken: str | None = None
    """How its words were none."""
    last_lines: bytes = b""


def outcome(end: Ended, heard: Heard, limits: Limits, workdir: Path) -> Outcome:
    """How it ended. What the warden did decides before anything that the converter said."""
    run = Run(duration_s=end.duration_s, peak_memory_bytes=end.peak_memory_bytes, isolation=heard.obtained)
    match end.cause:
        case "timeout":
            return TimedOut(run, limits.timeout_s)
        case "memory":
            return OutOfMemory(run, limits.memory_mb)
        case "kernel":
            return OutOfMemory(run, limits.memory_mb, "killed by the kernel")
        case "lost":
            return Crashed(run=run, broken="the process that watched it died")
        case "stop" if not heard.broken:
            return Cancelled(run)
    return _by_itself(run, end.exit_code, heard, limits, workdir)


def _by_itself(run: Run, exit_code: int, heard: Heard, limits: Limits, workdir: Path) -> Outcome:
    if heard.broken:
        return Crashed(run=run, broken=heard.broken)
    match heard.result:
        case Finished(conversion):
            return _converted(run, conversion, workdir)
        case Declined() as declined:
            return _refused(run, declined)
        case Exhausted(evidence):
            return OutOfMemory(run, limits.memory_mb, evidence)
        case None:
            return _silent(run, exit_code, heard.last_lines, limits)


def _refused(run: Run, declined: Declined) -> Outcome:
    if declined.code not in FAILURES:
        return Crashed(run=run, broken="it failed with an unknown code")
    return Refused(run=run, **msgspec.structs.asdict(declined))


def _silent(run: Run, exit_code: int, last_lines: bytes, limits: Limits) -> Outcome:
    """It ended without a result."""
    if exit_code >= 0:
        return Crashed(run=run, exit_code=exit_code)
    match -exit_code:
        case signal.SIGXCPU:
            return TimedOut(run, limits.cpu_s or limits.timeout_s)
        case signal.SIGABRT if b"std::bad_alloc" in last_lines:  # what C++ prints when nobody catches it
            return OutOfMemory(run, limits.memory_mb, "std::bad_alloc")
        case number:
            known = {known.value: known.name for known in signal.Signals}
            return Crashed(run=run, signal=known.get(number, f"signal {number}"))


def _converted(run: Run, conversion: Conversion, workdir: Path) -> Outcome:
    """Believe that it worked only if what it names can be read and served without harm."""
    artifact = workdir / conversion.artifact
    if not _is_own_file(artifact, workdir):
        return Crashed(run=run, broken="its artifact is not a file of its own in its work directory")
    name = conversion.filename
    if not name.isprintable() or Path(name).name != name or not conversion.media_type.isprintable():
        return Crashed(run=run, broken="its artifact has no usable name")
    return Converted(run, msgspec.structs.replace(conversion, artifact=artifact))


def _is_own_file(path: Path, workdir: Path) -> bool:
    """Not a link, by either kind of which somebody else's file would be published."""
    try:
        found = path.lstat()
        inside = path.parent.resolve().is_relative_to(workdir.resolve())
    except (OSError, ValueError, RuntimeError):  # also: a NUL in the path, a loop of links
        return False
    return inside and stat.S_ISREG(found.st_mode) and found.st_nlink == 1
