from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from converter.stage_bie.histograms import BINS, Histogram


def histogram_of(*runs: NDArray[np.float32]) -> Histogram:
    histogram = Histogram()
    for values in runs:
        histogram.add(values)
    return histogram


def drawn(size: int, spread: float, seed: int = 0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(size) * spread).astype(np.float32)


def lost(values: NDArray[np.float32], low: float, high: float, levels: int) -> float:
    """The mean square error of `values` quantised to `levels` steps from `low` to `high`, zero among them."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / levels
    zero = round(-low / step)
    kept = np.clip(np.rint(values.astype(np.float64) / step) + zero, 0, levels)
    return float(np.mean(((kept - zero) * step - values) ** 2))


def test_every_value_is_counted_in_its_bin():
    histogram = histogram_of(np.array([-2.0, -1.0, 0.0, 1.0, 2.0], np.float32), np.empty(0, np.float32))
    assert (histogram.low, histogram.high, histogram.reach) == (-2, 2, 2)
    assert np.flatnonzero(histogram.counts).tolist() == [0, BINS // 4, BINS // 2, 3 * BINS // 4, BINS - 1]


def test_runs_in_any_order_count_alike():
    runs = [drawn(1000, spread, seed) for seed, spread in enumerate((1e-6, 1.0, 50.0))]
    there, back = histogram_of(*runs), histogram_of(*reversed(runs))
    assert there.counts.sum() == back.counts.sum() == 3000
    assert (there.low, there.high) == (back.low, back.high)
    for percent in (90.0, 99.0):
        assert there.percentile(percent) == pytest.approx(back.percentile(percent), abs=4 * there.reach / BINS)


def test_a_tiny_first_value_costs_no_memory():
    tracemalloc.start()
    histogram = histogram_of(np.array([1e-38], np.float32), drawn(100, 1e30))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert histogram.counts.sum() == 101
    assert peak < 100 * BINS


@pytest.mark.parametrize("percent", [99.9, 95.0, 50.0])
def test_a_percentile_is_that_of_the_values(percent: float):
    values = drawn(100_000, 3.0) + np.float32(2)
    histogram = histogram_of(*np.split(values, 10))
    cut = (100 - percent) / 2
    expected = np.percentile(values, [cut, 100 - cut])
    width = 2 * histogram.reach / BINS
    assert histogram.percentile(percent) == pytest.approx(tuple(expected), abs=2 * width + 1e-3)


def test_all_values_are_from_the_least_to_the_greatest():
    values = drawn(1000, 3.0)
    assert histogram_of(values).percentile(100.0) == (float(values.min()), float(values.max()))


@pytest.mark.parametrize("rectified", [False, True])
def test_the_least_square_error_is_as_small_as_a_search_finds_it(rectified: bool):  # noqa: FBT001 - a parameter
    values = np.append(drawn(100_000, 1.0), np.float32(8))
    values = np.maximum(values, np.float32(0)) if rectified else values
    low, high = histogram_of(values).least_square_error(15)
    found, widest = lost(values, low, high, 15), float(values.max())
    best = min(lost(values, max(-bound, low), bound, 15) for bound in np.linspace(widest / 100, widest, 400))
    assert found < 0.5 * lost(values, float(values.min()), float(values.max()), 15)
    assert found < 1.05 * best


@pytest.mark.parametrize("values", [[0.0, 0.0], [5.0], [-3.0], [1e-40, 0.0]])
def test_few_values_keep_their_bounds(values: list[float]):
    histogram = histogram_of(np.array(values, np.float32))
    for low, high in (histogram.percentile(99.9), histogram.least_square_error(255)):
        assert min(histogram.low, 0) <= min(low, 0) <= max(high, 0) <= max(histogram.high, 0)
        assert low <= high


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows_in_the_bounds(value: float):
    histogram = histogram_of(np.array([1.0, value], np.float32), np.array([2.0], np.float32))
    assert not (np.isfinite(histogram.low) and np.isfinite(histogram.high))
    assert histogram.counts.sum() == 1
