from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from converter.toolchain.accuracy import Agreement, Collapse, verdict

NUMBERS = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
PAIRS = st.lists(
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=5).flatmap(
        lambda shape: st.tuples(*[hnp.arrays(np.float32, shape, elements=NUMBERS)] * 2)
    ),
    min_size=1,
    max_size=5,
)


@given(PAIRS)
def test_figures_are_those_of_all_runs_together(pairs: list[tuple[np.ndarray, np.ndarray]]):
    agreement = Agreement()
    for pair in pairs:
        agreement.add(*pair)
    x, y = (np.concatenate([pair[i].ravel() for pair in pairs]).astype(np.float64) for i in (0, 1))
    signal, noise = float(np.sum(x**2)), float(np.sum((x - y) ** 2))
    if noise == 0:
        assert agreement.snr_db == math.inf
    elif signal == 0:
        assert agreement.snr_db == -math.inf
    else:
        assert agreement.snr_db == pytest.approx(10 * math.log10(signal / noise), abs=1e-6)
    figures = agreement.figures()
    assert figures["exact"] == (noise == 0)
    assert figures["runs"] == len(pairs)
    assert figures["max_abs_error"] == pytest.approx(np.abs(x - y).max(), rel=1e-5)
    if signal and np.sum(y**2):
        cosine = float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))
        assert figures["cosine"] == pytest.approx(cosine, abs=2e-6)


def test_values_that_were_not_finite_before_are_counted_and_left_out():
    agreement = Agreement()
    agreement.add(np.array([1.0, np.nan, 2.0, np.inf]), np.array([1.0, 0.0, 2.0, np.inf]))
    assert agreement.figures() == {
        "snr_db": None,
        "cosine": 1.0,
        "max_abs_error": 0.0,
        "exact": True,
        "non_finite": 2,
        "runs": 1,
    }


@pytest.mark.parametrize(
    ("reference", "other"),
    [([1.0, 2.0], [1.0, math.inf]), ([math.nan, math.inf], [math.nan, math.inf])],
    ids=["lost", "nothing to compare"],
)
def test_what_is_not_finite_is_never_called_good(reference: list[float], other: list[float]):
    agreement = Agreement()
    agreement.add(np.array(reference), np.array(other))
    assert verdict(agreement.snr_db) == "poor"
    assert not agreement.figures()["exact"]
    assert math.isfinite(agreement.figures()["max_abs_error"])


def test_shapes_that_differ_cannot_be_compared():
    with pytest.raises(ValueError, match="shapes differ"):
        Agreement().add(np.zeros((1, 2)), np.zeros((2, 1)))


@pytest.mark.parametrize(
    ("snr_db", "meaning"),
    [(math.inf, "good"), (20.0, "good"), (19.9, "fair"), (10.0, "fair"), (9.9, "poor"), (-math.inf, "poor")],
)
def test_verdict(snr_db: float, meaning: str):
    assert verdict(snr_db) == meaning


def test_a_channel_that_stops_to_vary_is_named():
    collapse = Collapse()
    for value in (1.0, -1.0, 0.5):
        reference = np.array([[value, value, 0.0]])
        collapse.add(reference, np.array([[value, 0.25, 0.0]]))
    assert collapse.channels() == [1]
    assert collapse.count == 3
    assert not collapse.entire


def test_a_channel_that_varies_less_than_a_quantisation_step_is_not_called_collapsed():
    collapse = Collapse()
    for value in (1.0, -1.0):
        collapse.add(np.array([[value, value * 1e-4]]), np.array([[value, 0.0]]))
    assert collapse.channels() == []


def test_an_output_that_is_the_same_everywhere_has_collapsed_entirely():
    collapse = Collapse()
    collapse.add(np.array([[0.25, 0.26, 0.27]]), np.zeros((1, 3)))
    assert collapse.entire


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=4, max_side=4), elements=st.floats(-10, 10, width=32)))
def test_an_exact_copy_never_collapses(values: np.ndarray):
    collapse = Collapse()
    collapse.add(values, values.copy())
    collapse.add(values * 2, values * 2)
    assert collapse.channels() == []
    assert not collapse.entire
