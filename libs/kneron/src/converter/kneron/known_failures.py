"""What the vendor's toolchain says when it fails, and what that means.

The first rows are the vendor's own words in its manual's list of errors; those marked "users" are told by users alone.
"""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

from converter.common.conversion import ConversionRefused

_KEPT_LINES = 200
_LONGEST_EVIDENCE = 300


class Known(NamedTuple):
    """`pattern` in a line of the log; its groups `node`, `op` and `input`, where it has them, fill `message`."""

    pattern: re.Pattern[str]
    code: str
    message: str
    hint: str | None = None


def _known(pattern: str, code: str, message: str, hint: str | None = None) -> Known:
    return Known(re.compile(pattern, re.IGNORECASE), code, message, hint)


KNOWN: tuple[Known, ...] = (
    _known(
        r"undefined CPU op \[(?P<op>[^\]]*)\] of node \[(?P<node>[^\]]*)\]",
        "operator_unsupported",
        "neither the chip nor its CPU fallback has the operator {op}",
    ),
    _known(
        r"cannot find the corresponding input image folder of model input (?P<input>\S+)",
        "calibration_mismatch",
        "there is no reference data for the input {input}",
        "Send .npz files that have an array for every input of the model.",
    ),
    _known(
        r"inferred shape and existing shape differ in rank",
        "model_invalid",
        "the shapes that the model states are not those that it computes",
        "Remove the value_info of the model and infer its shapes again.",
    ),
    _known(
        r"assertion.*weight_radix_vect\.size\(\) == \(size_t\) ?o_c.*failed",
        "quantisation_failed",
        "a layer's weights have not one scale for each of its output channels",
        "Look for a convolution whose weights are shared or computed, and give it weights of its own.",
    ),
    _known(
        r"only support models after fix point analysis",
        "bie_incompatible",
        "the compiler does not take the quantised model for one",
    ),
    _known(r"unsupported model IR version", "ir_version_unsupported", "the toolchain does not read this IR version"),
    _known(
        r"external data .*is not loaded",
        "model_unsupported",
        "the model's weights are in another file",
        "Save the model as one file.",
    ),
    _known(
        r"died with <Signals\.SIGKILL: 9>",
        "stage_out_of_memory",
        "one of the toolchain's programs was killed, as is done for want of memory",
    ),
    _known(
        r"died with <Signals\.(?:SIGABRT: 6|SIGSEGV: 11)>",
        "toolchain_aborted",
        "one of the toolchain's programs crashed",
    ),
    _known(r"No module named '?(?:ktc|kneronnxopt)", "toolchain_unavailable", "this Python has no Kneron toolchain"),
    _known(  # users
        r"hw not support(?:ed)?(?:.*?node[: ]+\[?(?P<node>[^\s\]]+))?",
        "operator_unsupported",
        "the chip does not support a node",
    ),
    _known(r"failed to compile", "compilation_failed", "the compiler gave up"),  # users
    _known(r"\berr: ?4\b", "compilation_failed", "the compiler gave up with error 4"),  # users
)
"""In the order of what they tell: an earlier row explains a failure better than a later one."""

_OF_STEP = {
    "release": "toolchain_unavailable",
    "optimise": "conversion_failed",
    "analyse": "quantisation_failed",
    "compile": "compilation_failed",
}


class Log:
    """The end of what a toolchain printed, and the best explanation in all of it."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.found: tuple[int, re.Match[str]] | None = None

    def add(self, line: str) -> None:
        """Take the next line in."""
        self._lines.append(line)
        for rank, known in enumerate(KNOWN[: self.found[0]] if self.found else KNOWN):
            if match := known.pattern.search(line):
                self.found = (rank, match)
                return

    def evidence(self) -> str | None:
        """What the container engine's client complained of, or else the last line that says anything."""
        told = [line.strip()[:_LONGEST_EVIDENCE] for line in self._lines if line.strip()]
        return next((line for line in told if line.startswith("docker: ")), told[-1] if told else None)


def refusal(step: str, error: str, log: Log) -> ConversionRefused:
    """What the `error` raised in `step` means, by the `log` or by itself."""
    log.add(error)
    if log.found is None:
        return ConversionRefused(
            _OF_STEP.get(step, "conversion_failed"),
            "the toolchain stopped at an error that is not known",
            evidence=error[:_LONGEST_EVIDENCE],
        )
    rank, match = log.found
    known, groups = KNOWN[rank], match.groupdict()
    return ConversionRefused(
        known.code,
        known.message.format(**groups),
        node=groups.get("node"),
        op=groups.get("op"),
        evidence=match.string.strip()[:_LONGEST_EVIDENCE],
        hint=known.hint,
    )
