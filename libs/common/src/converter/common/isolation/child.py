"""What a forked process does: confine itself for good, convert, say how it went, and end."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import os
import sys
import threading
from functools import partial
from typing import NoReturn

from converter.common.conversion import ConversionRefused, Converter, exhausted
from converter.common.isolation import confine
from converter.common.isolation.messages import (
    Advanced,
    Confined,
    Declined,
    Exhausted,
    Finished,
    Start,
    Word,
    encode,
)
from converter.common.isolation.outcomes import Confinement

EVIDENCE_CHARACTERS = 500


def run(warden: int, start: Start, confinement: Confinement, report: int, output: int) -> NoReturn:
    """Be the converter's process. Never returns into the warden's loop, nor runs what it registered for its exit."""
    status = 1
    try:
        confine.leave_warden(warden, report, output, start.task.workdir, confinement.environment)
        _write_through()
        speak = _Speech(confine.REPORT)
        speak(Confined(confine.confine(start.limits, start.task.workdir, confinement)))
        _convert(start, speak)
        status = 0
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else 1
    except BaseException:  # noqa: BLE001 - ends this process with a status, and the log says why
        _log_exception()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            confine.libc.fflush(None)
        os._exit(status)


def _write_through() -> None:
    """Lines reach the log as they are written, from Python and from C, and a fatal signal leaves a traceback there."""
    text = partial(open, mode="w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stdout, sys.stderr = text(1), text(2)
    line_buffered = 1  # _IOLBF
    stdout = ctypes.c_void_p.in_dll(confine.libc, "stdout")
    confine.libc.setvbuf(stdout, None, line_buffered, ctypes.c_size_t(0))
    faulthandler.enable()


class _Speech:
    """Writes words to the service, each of them whole, from whichever thread."""

    def __init__(self, report: int) -> None:
        self._report = report
        self._lock = threading.Lock()

    def __call__(self, word: Word) -> None:
        left = memoryview(encode(word) + b"\n")
        with self._lock:
            while left:
                left = left[os.write(self._report, left) :]


def _convert(start: Start, speak: _Speech) -> None:
    """Convert, and say what came of it."""

    def progress(fraction: float, activity: str) -> None:
        # A comparison with NaN is false, which makes it 0.
        speak(Advanced(min(fraction, 1.0) if fraction > 0 else 0.0, _text(activity)))

    out_of_memory = False
    try:
        conversion = _converter(start.converter)(start.task, progress)
        speak(Finished(conversion))
    except ConversionRefused as refused:
        speak(_declined(refused))
    except MemoryError:
        out_of_memory = True  # and said below, where the traceback no longer holds on to what filled the memory
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this conversion that failed
        _log_exception()
        speak(_unexpected(error))
    if out_of_memory:
        speak(Exhausted("MemoryError"))


def _converter(path: str) -> Converter:
    module, _, function = path.partition(":")
    found: Converter = getattr(importlib.import_module(module), function)
    return found


def _declined(refused: ConversionRefused) -> Declined:
    facts = {name: getattr(refused, name) for name in ("node", "op", "evidence", "hint")}
    return Declined(
        code=refused.code,
        message=_text(refused.message),
        **{name: _text(fact) for name, fact in facts.items() if fact is not None},
    )


def _unexpected(error: Exception) -> Declined | Exhausted:
    first_line = str(error).strip().partition("\n")[0]
    evidence = _text(f"{type(error).__name__}: {first_line}")[:EVIDENCE_CHARACTERS]
    lacking = exhausted(error)
    if lacking == "memory":
        return Exhausted(evidence)
    if lacking == "disk":
        return Declined(
            code="stage_out_of_disk", message="The conversion ran out of room for its files.", evidence=evidence
        )
    return Declined(
        code="conversion_failed", message="The converter stopped at an error that it did not expect.", evidence=evidence
    )


def _log_exception() -> None:
    with contextlib.suppress(BaseException):
        sys.excepthook(*sys.exc_info())


def _text(value: str) -> str:
    """`value` without the lone surrogates that names in a model's bytes may have become."""
    return value.encode(errors="replace").decode()
