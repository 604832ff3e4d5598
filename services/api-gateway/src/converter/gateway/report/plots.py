"""The geometry of the report's plots: bars of decibels over thresholds, in the units of an SVG's view box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

Kind = Literal["good", "fair", "poor", "exact", "noise"]

GOOD_DB, FAIR_DB = 20.0, 10.0
"""Where `contracts.report.Quality` parts."""
_WIDTH, _HEIGHT = 640.0, 250.0
_LEFT, _RIGHT, _TOP = 40.0, 8.0, 14.0
_LEAST_TOP_DB, _MOST_TOP_DB, _LEAST_BOTTOM_DB = 40.0, 100.0, -20.0
_STEP_DB = 10
_FILLED = 0.78
"""The part of its place that a bar takes."""
_WIDEST = 72.0


class Level(Struct, frozen=True, kw_only=True):
    """What a bar is to show. `snr_db` none: no number, because nothing differs (`exact`) or only noise is left."""

    label: str
    snr_db: float | None
    exact: bool = False
    below: tuple[str, ...] = ()
    """Lines under the bar; a plot of many bars has none."""
    marked: bool = False


class Bar(Struct, frozen=True, kw_only=True):
    """A drawn level; `said` is what it shows, in words."""

    x: float
    y: float
    width: float
    height: float
    kind: Kind
    said: str
    level: Level

    @property
    def middle(self) -> float:
        """Where its captions stand."""
        return round(self.x + self.width / 2, 2)


class Line(Struct, frozen=True, kw_only=True):
    """A horizontal line, and what stands at its end."""

    y: float
    text: str
    threshold: bool


class Plot(Struct, frozen=True, kw_only=True):
    """Bars in front of lines."""

    width: float
    height: float
    left: float
    right: float
    bottom: float
    bars: tuple[Bar, ...]
    lines: tuple[Line, ...]


def kind(snr_db: float | None, *, exact: bool) -> Kind:
    """What a figure means."""
    if snr_db is None:
        return "exact" if exact else "noise"
    return "good" if snr_db >= GOOD_DB else "fair" if snr_db >= FAIR_DB else "poor"


def said(snr_db: float | None, *, exact: bool) -> str:
    """A figure in words."""
    if snr_db is None:
        return "exact" if exact else "only noise"
    return f"{snr_db:.1f} dB"


def plot(levels: Sequence[Level], thresholds: Sequence[float] = (GOOD_DB, FAIR_DB)) -> Plot | None:
    """The plot of `levels`, from left to right; none without any."""
    if not levels:
        return None
    scale = _Scale(levels, thresholds)
    room = _WIDTH - _LEFT - _RIGHT
    place = room / len(levels)
    width = min(place * _FILLED, _WIDEST)
    bars = tuple(
        _bar(level, _LEFT + index * place + (place - width) / 2, width, scale) for index, level in enumerate(levels)
    )
    lines = [Line(y=scale.y(value), text=f"{value:g}", threshold=value in thresholds) for value in scale.values()]
    captions = max(len(level.below) for level in levels)
    return Plot(
        width=_WIDTH,
        height=_HEIGHT + 8 + 18 * captions,
        left=_LEFT,
        right=_WIDTH - _RIGHT,
        bottom=_HEIGHT,
        bars=bars,
        lines=tuple(lines),
    )


class _Scale:
    """From decibels to places: tens that hold all levels, but for what lies far outside of what matters."""

    def __init__(self, levels: Sequence[Level], thresholds: Sequence[float]) -> None:
        known = [level.snr_db for level in levels if level.snr_db is not None]
        top = _STEP_DB * math.ceil(max([*known, *thresholds, _LEAST_TOP_DB]) / _STEP_DB)
        bottom = _STEP_DB * math.floor(min([*known, 0.0]) / _STEP_DB)
        if any(level.snr_db is None and not level.exact for level in levels):
            bottom = min(bottom, -_STEP_DB)
        self._thresholds = thresholds
        self.top, self.bottom = min(float(top), _MOST_TOP_DB), max(float(bottom), _LEAST_BOTTOM_DB)

    def y(self, decibels: float) -> float:
        inside = min(max(decibels, self.bottom), self.top)
        return round(_TOP + (_HEIGHT - _TOP) * (self.top - inside) / (self.top - self.bottom), 2)

    def values(self) -> list[float]:
        """Where lines are drawn."""
        every = 2 * _STEP_DB if self.top - self.bottom > 6 * _STEP_DB else _STEP_DB
        first = math.ceil(self.bottom / every) * every
        return sorted({*map(float, range(first, int(self.top) + 1, every)), *self._thresholds})


def _bar(level: Level, x: float, width: float, scale: _Scale) -> Bar:
    what = kind(level.snr_db, exact=level.exact)
    value = level.snr_db if level.snr_db is not None else scale.top if level.exact else scale.bottom
    ends = sorted((scale.y(0.0), scale.y(value)))
    return Bar(
        x=round(x, 2),
        y=ends[0],
        width=round(width, 2),
        height=max(round(ends[1] - ends[0], 2), 1.0),
        kind=what,
        said=f"{level.label}: {said(level.snr_db, exact=level.exact)}",
        level=level,
    )
