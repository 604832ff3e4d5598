from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.gateway.report.plots import Level, plot

LEVELS = st.lists(
    st.builds(
        Level,
        label=st.text(max_size=5),
        snr_db=st.none() | st.floats(-1e6, 1e6),
        exact=st.booleans(),
        below=st.lists(st.text(max_size=3), max_size=2).map(tuple),
    ),
    min_size=1,
    max_size=400,
)


def test_without_levels_there_is_no_plot():
    assert plot([]) is None


@given(LEVELS)
def test_everything_is_drawn_inside_of_the_picture(levels: list[Level]):
    drawn = plot(levels)
    assert drawn is not None
    assert len(drawn.bars) == len(levels)
    for bar in drawn.bars:
        assert drawn.left <= bar.x < bar.x + bar.width <= drawn.right + 0.01
        assert 0 <= bar.y < bar.y + bar.height <= drawn.height
        assert bar.height >= 1
    assert all(0 <= line.y <= drawn.height and math.isfinite(line.y) for line in drawn.lines)


def test_bars_stand_in_proportion_on_the_zero_line_and_thresholds_are_marked():
    drawn = plot([Level(label=name, snr_db=snr_db) for name, snr_db in (("a", 10.0), ("b", 20.0), ("c", -5.0))])
    assert drawn is not None
    ten, twenty, below = drawn.bars
    lines = {line.text: line for line in drawn.lines}
    assert twenty.height == pytest.approx(2 * ten.height, abs=0.02)
    assert ten.y == lines["10"].y
    assert ten.y + ten.height == pytest.approx(lines["0"].y, abs=0.02)
    assert below.y == lines["0"].y
    assert {text for text, line in lines.items() if line.threshold} == {"10", "20"}
    assert [bar.kind for bar in drawn.bars] == ["fair", "good", "poor"]


def test_what_has_no_number_is_told_apart():
    drawn = plot([Level(label="same", snr_db=None, exact=True), Level(label="lost", snr_db=None)])
    assert drawn is not None
    assert [bar.said for bar in drawn.bars] == ["same: exact", "lost: only noise"]
    exact, noise = drawn.bars
    assert exact.y < noise.y
    assert drawn.lines[0].text == "-10"
