"""How far a quantised model is from the float model that it was made from. Nothing but running sums is kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from converter.toolchain.reporting import named

if TYPE_CHECKING:
    from numpy.typing import NDArray

Verdict = Literal["good", "fair", "poor"]
GOOD_DB, FAIR_DB = 20.0, 10.0
"""The vendor calls int8 fine from 20 dB on (its manual's advice on the quantisation ladder)."""
MOST_CHANNELS_NAMED = 32
_NOTICEABLE_STEPS = 4
_STEPS_OF_RANGE = 255


def verdict(snr_db: float) -> Verdict:
    """What an SNR means: `good` from 20 dB on, `fair` from 10 dB on, else `poor`."""
    return "good" if snr_db >= GOOD_DB else "fair" if snr_db >= FAIR_DB else "poor"


def complaint(output: str, snr_db: float) -> str | None:
    """What to tell of the output of this name, if its accuracy is poor."""
    if verdict(snr_db) != "poor":
        return None
    found = f"{snr_db:.3f} dB" if math.isfinite(snr_db) else "nothing in common with the float model's"
    return f"Poor accuracy: the output {output!r} has {found}."


class Agreement:
    """SNR, cosine and largest error of one tensor over many runs.

    With x the reference and y the other, over all elements of all runs: SNR = 10 log10(Σx² / Σ(x-y)²),
    cosine = Σxy / sqrt(Σx² Σy²). An element that is not finite in one of the two counts as `non_finite`. Where only
    the reference is finite, the noise is infinite; otherwise the element is left out.
    """

    def __init__(self) -> None:
        self._signal = self._noise = self._product = self._other = self._largest = 0.0
        self._runs = self._finite = self.non_finite = 0

    def add(self, reference: NDArray[Any], other: NDArray[Any]) -> None:
        """Takes one run's pair in; both of the same shape, of any number type.

        Raises:
            ValueError: the shapes differ.
        """
        if reference.shape != other.shape:
            raise ValueError(f"shapes differ: {reference.shape} and {other.shape}")
        x = np.asarray(reference, np.float64).ravel()
        y = np.asarray(other, np.float64).ravel()
        finite = np.isfinite(x) & np.isfinite(y)
        if not finite.all():
            self.non_finite += int(finite.size - np.count_nonzero(finite))
            self._noise += math.inf if np.isfinite(x[~finite]).any() else 0.0
            x, y = x[finite], y[finite]
        self._finite += x.size
        error = x - y
        self._signal += float(x @ x)
        self._noise += float(error @ error)
        self._product += float(x @ y)
        self._other += float(y @ y)
        self._largest = max(self._largest, float(np.abs(error).max(initial=0.0)))
        self._runs += 1

    @property
    def snr_db(self) -> float:
        """Infinite where nothing differs, minus infinite where only noise is left, or nothing that is a number."""
        if self._noise == 0:
            return math.inf if self._finite or not self.non_finite else -math.inf
        return 10 * (math.log10(self._signal) - math.log10(self._noise)) if self._signal else -math.inf

    def figures(self) -> dict[str, Any]:
        """As reports write them. `snr_db` is none where it is no number; `exact` tells the harmless case."""
        snr = self.snr_db
        norm = math.sqrt(self._signal) * math.sqrt(self._other)
        return {
            "snr_db": round(snr, 3) if math.isfinite(snr) else None,
            "cosine": round(min(self._product / norm, 1.0), 6) if norm else None,
            "max_abs_error": float(f"{self._largest:.6g}"),
            "exact": snr == math.inf,
            "non_finite": self.non_finite,
            "runs": self._runs,
        }


class Collapse:
    """Finds the channels (axis 1) of an output that stopped to vary when the model was quantised.

    A conversion can succeed and yet give a model that always answers the same: every value then lies below one
    quantisation step. A channel counts as collapsed if it varies in the reference by more than four of the 255 steps of
    the whole output's range, where any sound quantisation would show it, and not at all in the other.
    """

    def __init__(self) -> None:
        self._low: list[NDArray[np.float64]] = []
        self._high: list[NDArray[np.float64]] = []

    def add(self, reference: NDArray[Any], other: NDArray[Any]) -> None:
        """Takes one run's pair in; both [N, C, ...], or of fewer axes, which is one channel."""
        pair = [_by_channel(reference), _by_channel(other)]
        low, high = [values.min(axis=1) for values in pair], [values.max(axis=1) for values in pair]
        if self._low and self._low[0].shape == low[0].shape:
            low = [np.minimum(*both) for both in zip(self._low, low, strict=True)]
            high = [np.maximum(*both) for both in zip(self._high, high, strict=True)]
        self._low, self._high = low, high

    def channels(self) -> list[int]:
        """The numbers of the collapsed channels, in order."""
        if not self._low:
            return []
        whole_range = float(self._high[0].max(initial=-math.inf) - self._low[0].min(initial=math.inf))
        noticeable = _NOTICEABLE_STEPS * whole_range / _STEPS_OF_RANGE
        varied, varies = (high - low for low, high in self._bounds())
        return [int(index) for index in np.flatnonzero((varied > noticeable) & (varies == 0))]

    @property
    def entire(self) -> bool:
        """Whether the other gives one and the same value everywhere and always, and the reference does not."""
        spread = [high.max(initial=-math.inf) - low.min(initial=math.inf) for low, high in self._bounds()]
        return bool(spread and spread[0] > 0 and spread[1] == 0)

    @property
    def count(self) -> int:
        """How many channels were looked at."""
        return int(self._low[0].size) if self._low else 0

    def sentence(self, output: str) -> str | None:
        """What to tell of the output of this name, if it collapsed or channels of it did."""
        if self.entire:
            return f"The output {output!r} collapsed: it is constant after quantisation."
        if channels := self.channels():
            return (
                f"The output {output!r} collapsed: {len(channels)} of its {self.count} channels are constant after "
                f"quantisation ({named(list(map(str, channels)), MOST_CHANNELS_NAMED)})."
            )
        return None

    def _bounds(self) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Lowest and highest value by channel, of the reference and of the other."""
        return list(zip(self._low, self._high, strict=True))


def _by_channel(values: NDArray[Any]) -> NDArray[np.float64]:
    """[C, samples] of finite numbers."""
    numbers = np.nan_to_num(np.asarray(values, np.float64))
    if numbers.ndim < 2 or numbers.size == 0:  # noqa: PLR2004 - no channel axis
        return numbers.reshape(1, -1) if numbers.size else np.zeros((1, 1))
    return np.moveaxis(numbers, 1, 0).reshape(numbers.shape[1], -1)
