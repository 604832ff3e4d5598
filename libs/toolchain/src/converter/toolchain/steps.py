"""The steps of a conversion: what is printed, timed and told of each, and how one fails."""

from __future__ import annotations

import errno
import os
import re
import resource
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

import converter.toolchain.preloading  # noqa: F401 - every converter has steps, and is to have this
from converter.common.conversion import ConversionRefused, exhausted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converter.common.conversion import Progress

_LONGEST_EVIDENCE = 300
_SCRATCH_FILE = re.compile(r"Load model from .*? failed: ?")
"""Holds the path of a scratch file: of no use to the client, and different each time."""
_HINT_FOR_KERNELS = (
    "ONNX Runtime, which computes models here, does not have this operator in this opset and for these types: export "
    "the model in float32 with an opset from 8 to 18, or replace the operator."
)
_NODE = (
    re.compile(r"Name:\s*'(?P<node>[^']+)'"),
    re.compile(r"[Nn]ode name:\s*(?P<node>[^\s)]+)"),
    re.compile(r"Node\s*\((?P<node>[^)]+)\)"),
    re.compile(r"In Node,\s*\(\"(?P<node>[^\"]+)\""),
    re.compile(r"with name '(?P<node>[^']+)'"),
    re.compile(r"==>\s*Context: Bad node spec for node\. Name: (?P<node>\S+)"),
)
_OP = (
    re.compile(r"op_type:\s*(?P<op>\w+)"),
    re.compile(r"Op\s*\((?P<op>\w+)\)"),
    re.compile(r"while running (?P<op>\w+) node"),
    re.compile(r"In Node,\s*\(\"[^\"]*\",\s*(?P<op>\w+)"),
    re.compile(r"implementation for (?P<op>\w+)\("),
    re.compile(r"OpType: (?P<op>\w+)"),
    re.compile(r"No Op registered for (?P<op>\w+)"),
)


class Steps:
    """Runs a conversion's steps in order; `timings` has the seconds that each took."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.warnings: list[str] = []
        self._seconds: dict[str, float] = {}
        self._figures: list[str] = []

    @contextmanager
    def step(self, name: str, *, at: float, code: str, activity: str) -> Iterator[None]:
        """One step, which begins at the fraction `at` of the stage. `code` is what a failure of a library becomes.

        Raises:
            ConversionRefused: the step raised it, or a library raised something else.
        """
        self.progress(at, activity)
        self._figures = []
        started = time.perf_counter()
        try:
            yield
        except ConversionRefused as refusal:
            _print(f"[{name}] refused: {refusal.message}")
            raise
        except MemoryError:
            raise  # an outcome of its own, which the jail tells
        except Exception as error:
            _print(f"[{name}] failed: {type(error).__name__}: {error}")
            lacking = exhausted(error)
            if lacking == "disk" and not isinstance(error, OSError):
                # Said now: once the scratch files are gone, there may be room.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            if lacking:
                raise  # the same, in a library's words
            raise refusal_of(error, code, activity) from error
        self._seconds[name] = time.perf_counter() - started
        _print(f"[{name}] {self._seconds[name]:.3f} s" + "".join(f"; {figure}" for figure in self._figures))

    def say(self, figure: str) -> None:
        """Adds `figure` to the line that is printed once the step is done."""
        self._figures.append(figure)

    def warn(self, warning: str) -> None:
        """Keeps `warning` for whoever reads the job."""
        _print(f"warning: {warning}")
        self.warnings.append(warning)

    def timings(self) -> dict[str, Any]:
        """Seconds by step, and the most memory that the process has held: what differs between two equal runs."""
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "seconds": {name: round(seconds, 4) for name, seconds in self._seconds.items()},
            "peak_memory_bytes": peak_kib * 1024,
        }


def refusal_of(error: Exception, code: str, activity: str) -> ConversionRefused:
    """What a library's `error` becomes: its own words as evidence, and the node and operator that they name.

    An operator that the runtime has no kernel for makes the model unsupported, whichever step meets it first.
    """
    no_kernel = isinstance(error, NoKernel)
    code = "model_unsupported" if no_kernel else code
    text = _SCRATCH_FILE.sub("", str(error))
    line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    node = next((match["node"] for pattern in _NODE if (match := pattern.search(text))), None)
    op = next((match["op"] for pattern in _OP if (match := pattern.search(text))), None)
    where = f" at the node {node!r}" if node else f" at an operator {op}" if op else ""
    return ConversionRefused(
        code,
        f"{activity} failed{where}",
        node=node,
        op=op,
        evidence=line[:_LONGEST_EVIDENCE],
        hint=_HINT_FOR_KERNELS if no_kernel else None,
    )


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a converter's standard output is its stage's log
