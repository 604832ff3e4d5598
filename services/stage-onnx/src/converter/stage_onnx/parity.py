"""Whether a rewritten model still computes what its source did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converter.common.conversion import ConversionRefused
from converter.toolchain import samples
from converter.toolchain.sessions import Execution, open_session

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from converter.toolchain.models import TensorSpec

MOST_ABSOLUTE, MOST_RELATIVE = 1e-5, 1e-3
"""Outputs may differ by the one or the other; the relative difference is to the output's largest value."""
_RUNS = 2


class Reference:
    """The outputs of a model that is about to be rewritten, over `_RUNS` made-up inputs, run node by node.

    Raises:
        ConversionRefused: `model_unsupported`: the model draws random numbers.
        Exception: whatever the runtime says of a model that it cannot run.
    """

    def __init__(self, source: Path, inputs: tuple[TensorSpec, ...]) -> None:
        session = open_session(source, Execution.AS_WRITTEN)
        self._feeds = [samples.synthetic(inputs, None, seed).feeds for seed in range(_RUNS)]
        try:
            self._answers = [session.run(None, feeds) for feeds in self._feeds]
        except Exception:
            if all(spec.dtype.startswith("float") for spec in inputs):
                raise
            # Whole numbers may be indices into a table or a batch of one, where only 0 is valid.
            self._feeds = [_with_zeros(feeds) for feeds in self._feeds]
            self._answers = [session.run(None, feeds) for feeds in self._feeds]
        again = session.run(None, self._feeds[0])
        if any(_too_far(*_difference(*pair)) for pair in zip(self._answers[0], again, strict=True)):
            raise ConversionRefused(
                "model_unsupported", "the model gives another result each time that it is run with the same input"
            )

    def compare(self, result: Path) -> dict[str, Any]:
        """The largest differences of the model at `result`, run in the same way.

        Raises:
            ConversionRefused: `optimisation_diverged`: they are larger than rounding explains.
        """
        rewritten = open_session(result, Execution.AS_WRITTEN)
        absolute = relative = 0.0
        for feeds, answers in zip(self._feeds, self._answers, strict=True):
            for before, after in zip(answers, rewritten.run(None, feeds), strict=True):
                difference, ratio = _difference(before, after)
                absolute, relative = max(absolute, difference), max(relative, ratio)
        if _too_far(absolute, relative):
            raise ConversionRefused(
                "optimisation_diverged",
                f"the outputs differ by up to {absolute:.3g} ({relative:.3g} of the largest value)",
            )
        return {
            "method": "both models run node by node on the same made-up inputs",
            "runs": _RUNS,
            "max_abs": float(f"{absolute:.3g}"),
            "max_rel": float(f"{relative:.3g}"),
            "limits": {"max_abs": MOST_ABSOLUTE, "max_rel": MOST_RELATIVE},
        }


def _with_zeros(feeds: samples.Feeds) -> samples.Feeds:
    """`feeds` whose whole numbers are all 0."""
    return {name: array if array.dtype.kind == "f" else np.zeros_like(array) for name, array in feeds.items()}


def _too_far(absolute: float, relative: float) -> bool:
    return absolute > MOST_ABSOLUTE and relative > MOST_RELATIVE


def _difference(before: NDArray[Any], after: NDArray[Any]) -> tuple[float, float]:
    """The largest absolute difference, and its ratio to the largest absolute value of `before`."""
    if before.shape != after.shape or before.dtype.kind not in "fiub":
        return (0.0, 0.0) if np.array_equal(before, after) else (float("inf"), float("inf"))
    x, y = np.asarray(before, np.float64), np.asarray(after, np.float64)
    alike = (x == y) | (np.isnan(x) & np.isnan(y))
    gap = np.abs(np.where(alike, 0.0, x - np.where(alike, 0.0, y)))
    gap = np.where(alike, 0.0, np.nan_to_num(gap, nan=np.inf))
    largest = float(gap.max(initial=0.0))
    scale = float(np.abs(np.nan_to_num(x)).max(initial=0.0))
    return largest, largest / scale if scale else largest
