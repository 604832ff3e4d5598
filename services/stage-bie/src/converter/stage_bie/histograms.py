"""How often each value of every tensor of a model occurs, over any number of runs, and the ranges that follow.

ONNX Runtime's own histograms of this kind take several times as long, and one begun with a small value grows without
bound. These have the same number of bins whatever comes: where a value lies beyond them, their width doubles.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

from converter.toolchain import models
from converter.toolchain.sessions import Execution, open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from converter.toolchain.samples import Feeds

BINS = 8192
"""At least 4096 of them lie within the range of a tensor's values."""
_HALF = BINS // 2
_AT_ONCE = 1 << 15
"""Values, so that what is made of them stays in the processor's cache."""
_LEAST_REACH = 1e-30
"""Nearer to zero the bins of float32 values would be too narrow for float32."""


class Histogram:
    """Counts in bins of equal width from -`reach` to `reach`; `low` and `high` are the bounds of all values.

    A value that is not finite shows in the bounds and in no bin.
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.reach = 0.0
        self.low, self.high = math.inf, -math.inf

    def add(self, values: NDArray[Any]) -> None:
        """Takes one array in; an empty one changes nothing."""
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        self.low, self.high = float(np.minimum(self.low, low)), float(np.maximum(self.high, high))
        if not (math.isfinite(low) and math.isfinite(high)):
            return
        self._reach_to(max(-low, high))
        self._count(np.ravel(values))

    def percentile(self, percent: float) -> tuple[float, float]:
        """The bounds of what is left where as much is cut off at either end, `percent` (0..100) of all values."""
        cumulated = np.cumsum(self.counts)
        cut = cumulated[-1] * (100 - percent) / 200
        first, last = np.searchsorted(cumulated, [cut, cumulated[-1] - cut])
        return max(self._edge(int(first)), self.low), min(self._edge(int(last) + 1), self.high)

    def least_square_error(self, levels: int) -> tuple[float, float]:
        """The bounds ±t, within those of the values and zero, that lose least when quantised to `levels` steps.

        What lies within loses step² / 12 on average, what lies beyond its squared distance.
        """
        width = self.reach / _HALF
        middles, bounds = (np.arange(_HALF) + 0.5) * width, np.arange(1, _HALF + 1) * width
        counts = (self.counts[_HALF:] + self.counts[_HALF - 1 :: -1]).astype(np.float64)
        within = np.cumsum(counts)
        beyond, first, second = (_sums_beyond(counts * middles**power) for power in range(3))
        cut = second - 2 * bounds * first + bounds**2 * beyond
        highs, lows = np.minimum(bounds, max(self.high, 0)), np.maximum(-bounds, min(self.low, 0))
        best = np.argmin(cut + within * ((highs - lows) / levels) ** 2 / 12)
        return float(lows[best]), float(highs[best])

    def _reach_to(self, bound: float) -> None:
        if not self.reach:
            self.reach = max(bound, _LEAST_REACH) if bound else 0.0
        while bound > self.reach:
            self.reach *= 2
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[:] = 0
            self.counts[_HALF // 2 : _HALF // 2 + _HALF] = pairs

    def _count(self, values: NDArray[Any]) -> None:
        scale = np.float32(_HALF / self.reach) if self.reach else np.float32(0)
        for start in range(0, values.size, _AT_ONCE):
            places = values[start : start + _AT_ONCE].astype(np.float32) * scale
            places += np.float32(_HALF)
            found = np.bincount(places.astype(np.intp), minlength=BINS + 1)
            self.counts += found[:BINS]
            self.counts[-1] += found[BINS]  # the upper bound itself

    def _edge(self, number: int) -> float:
        return (number / _HALF - 1) * self.reach


def _sums_beyond(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each place, the sum of what comes after it."""
    total: NDArray[np.float64] = np.cumsum(values[::-1])[::-1] - values
    return total


class Histograms:
    """Runs `model`, which it changes, and keeps a histogram of each of its `tensors`; `choose` makes its bounds."""

    def __init__(
        self,
        model: onnx.ModelProto,
        scratch: Path,
        tensors: Collection[str],
        choose: Callable[[Histogram], tuple[float, float]],
    ) -> None:
        self._choose = choose
        self._histograms = {name: Histogram() for name in sorted(tensors)}
        fed = {value.name for value in model.graph.input}
        given = {value.name for value in model.graph.output}
        self._computed = [name for name in self._histograms if name not in fed]
        model.graph.output.extend(
            helper.make_empty_tensor_value_info(name) for name in self._computed if name not in given
        )
        observed = scratch / "observed.onnx"
        models.save(model, observed)
        self._session = open_session(observed, Execution.AS_WRITTEN)

    def add(self, feeds: Feeds) -> None:
        """Takes one run in."""
        found = self._session.run(self._computed, feeds) if self._computed else []
        for name, values in (*feeds.items(), *zip(self._computed, found, strict=True)):
            if name in self._histograms:
                self._histograms[name].add(values)

    def bounds(self) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        """Lowest and highest value by tensor, each of shape [1]."""
        return {name: self._bounds(histogram) for name, histogram in self._histograms.items()}

    def _bounds(self, histogram: Histogram) -> tuple[NDArray[Any], NDArray[Any]]:
        low, high = histogram.low, histogram.high
        if low > high:  # no run had a value
            low = high = 0.0
        elif math.isfinite(low) and math.isfinite(high):
            low, high = self._choose(histogram)
        return np.array([low], np.float32), np.array([high], np.float32)
