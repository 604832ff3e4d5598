"""Rows of sides, measured in turns: what `run.py` runs and `page.py` shows.

A row compares sides: the converter, a peer, a limit, or the converter with ten times as much to do. Every round
measures each side once, in an order that turns from round to round, so that a machine that slows down slows all of
them; a target's ratio is taken within each round, and its median over the rounds is what counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NamedTuple

import msgspec

Figures = dict[str, dict[str, list[float]]]


class Side(NamedTuple):
    """One of those compared.

    Attributes:
        name: where the row has an axis, a number: "10", "1000".
        measure: one round. Its figures are named with their units: "jobs/s", "p50 ms", "CPU ms per job".
    """

    name: str
    measure: Callable[[], Awaitable[Mapping[str, float]]]


class Target(NamedTuple):
    """What is to be reached by `figure` of the side `ours`: itself, or its ratio to that of `peer`.

    One of `at_least` and `at_most` is given.
    """

    figure: str
    ours: str
    peer: str | None = None
    at_least: float | None = None
    at_most: float | None = None


class Row(NamedTuple):
    """One comparison.

    Attributes:
        name: what the command line and the files call it.
        title: a line for people.
        text: what is measured and how, what is not, and why a target is missed: Markdown, the module's docstring.
        sides: starts what they need in a directory of its own, and ends it.
        targets: in the order of the table.
        axis: what the sides' names count, where the row is a curve: "queued jobs".
    """

    name: str
    title: str
    text: str
    sides: Callable[[Path], AbstractAsyncContextManager[Sequence[Side]]]
    targets: Sequence[Target]
    axis: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """A target, and what the rounds make of it: their median and range."""

    figure: str
    ours: str
    peer: str | None
    at_least: float | None
    at_most: float | None
    median: float
    lowest: float
    highest: float

    @property
    def reached(self) -> bool:
        """Whether the median is within the bound."""
        return (self.at_least is None or self.median >= self.at_least) and (
            self.at_most is None or self.median <= self.at_most
        )


class Run(msgspec.Struct, frozen=True):
    """A row's rounds, and when and where they were: `load` is the machine's load average before them.

    The figures are by side, each a list with one value a round.
    """

    at: str
    machine: str
    load: float
    sides: Figures
    verdicts: list[Verdict]


async def measure(row: Row, directory: Path, *, rounds: int, tell: Callable[[str], None]) -> Figures:
    """All rounds of the row."""
    async with row.sides(directory) as sides:
        figures: Figures = {side.name: {} for side in sides}
        for number in range(rounds):
            first = number % len(sides)
            for side in (*sides[first:], *sides[:first]):
                found = await side.measure()
                for figure, value in found.items():
                    figures[side.name].setdefault(figure, []).append(float(value))
                told = ", ".join(f"{value:,.4g} {figure}" for figure, value in found.items())
                tell(f"{row.name}, round {number + 1} of {rounds}, {side.name}: {told}")
    return figures


def judged(target: Target, figures: Figures) -> Verdict:
    """What the rounds make of the target."""
    values = figures[target.ours][target.figure]
    if target.peer is not None:
        values = [ours / theirs for ours, theirs in zip(values, figures[target.peer][target.figure], strict=True)]
    return Verdict(**target._asdict(), median=statistics.median(values), lowest=min(values), highest=max(values))
