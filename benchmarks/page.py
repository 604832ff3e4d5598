"""docs/performance.md and its plots, made of what was measured.

python benchmarks/page.py
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import msgspec
from harness import Row, Run, Verdict
from matplotlib import pyplot as plt
from rows import ROWS

mpl.use("svg")
mpl.rcParams |= {"svg.hashsalt": "performance", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}

RESULTS = Path(__file__).with_name("results.json")
DOCS = Path(__file__).parent.parent / "docs"
PAGE, PLOTS = DOCS / "performance.md", DOCS / "images" / "performance"
HEAD = """# Performance

Made by `make bench`, which starts every server and peer that it needs, each peer in an environment of its own, and
writes benchmarks/results.json and this page (`ROWS="upload download"` for some of the rows, `ROUNDS=5`). Sides take
turns within a round. A figure is the median of the rounds with their range in brackets; a ratio is taken within each
round.

Absolute figures move with the machine and with who else uses it: read the ratios. No test checks them.

"""


def main() -> None:
    """Write the page and a plot for each row that has been measured."""
    runs = kept()
    measured = [(row, runs[row.name]) for row in ROWS if row.name in runs]
    PLOTS.mkdir(exist_ok=True)
    for row, run in measured:
        _plot(row, run)
    verdicts = [(row, verdict) for row, run in measured for verdict in run.verdicts]
    missed = [(row, verdict) for row, verdict in verdicts if not verdict.reached]
    parts = [HEAD, "## What is to be reached\n\n", _targets(verdicts), "\n## Where it falls short\n\n", _missed(missed)]
    PAGE.write_text("".join([*parts, *(_section(row, run) for row, run in measured)]).rstrip() + "\n")


def kept() -> dict[str, Run]:
    """What has been measured, by the row's name."""
    return msgspec.json.decode(RESULTS.read_bytes(), type=dict[str, Run]) if RESULTS.exists() else {}


def sentence(verdict: Verdict) -> str:
    """A target and what became of it."""
    of = f" to {verdict.peer}'s" if verdict.peer else ""
    return f"{verdict.ours}, {verdict.figure}{of}: {_median(verdict)}, to reach {_bound(verdict)}: {_reached(verdict)}"


def _targets(verdicts: Sequence[tuple[Row, Verdict]]) -> str:
    lines = ["| row | figure | side by side with | measured | to reach | |", "| --- | --- | --- | --- | --- | --- |"]
    for row, verdict in verdicts:
        cells = (
            f"[{row.title}](#{row.name})",
            f"{verdict.ours}: {verdict.figure}",
            verdict.peer or "",
            _median(verdict),
            _bound(verdict),
        )
        lines.append(f"| {' | '.join(cells)} | {_reached(verdict)} |")
    return "\n".join(lines) + "\n"


def _missed(missed: Sequence[tuple[Row, Verdict]]) -> str:
    if not missed:
        return "Nowhere in these rows.\n"
    return "".join(f"- [{row.title}](#{row.name}): {sentence(verdict)}.\n" for row, verdict in missed)


def _section(row: Row, run: Run) -> str:
    figures = list(dict.fromkeys(figure for side in run.sides.values() for figure in side))
    lines = [
        f'\n<a id="{row.name}"></a>\n\n## {row.title}\n\n{row.text.strip()}\n',
        f"| {row.axis or 'side'} | {' | '.join(figures)} |",
        f"| --- |{' ---: |' * len(figures)}",
    ]
    for side, found in run.sides.items():
        lines.append(f"| {side} | {' | '.join(_values(found.get(figure)) for figure in figures)} |")
    plot = f"![{row.title}](images/performance/{row.name}.svg)"
    rounds = max(len(values) for side in run.sides.values() for values in side.values())
    lines.append(f"\n{plot}\n\n{rounds} rounds, {run.at} UTC, load {run.load:.1f} before; {run.machine}.\n")
    return "\n".join(lines)


def _values(values: Sequence[float] | None) -> str:
    return _spread(statistics.median(values), min(values), max(values)) if values else ""


def _median(verdict: Verdict) -> str:
    return _spread(verdict.median, verdict.lowest, verdict.highest)


def _spread(median: float, lowest: float, highest: float) -> str:
    return f"{_number(median)} ({_number(lowest)} to {_number(highest)})" if lowest != highest else _number(median)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits tell enough


def _bound(verdict: Verdict) -> str:
    return f"≥ {verdict.at_least:g}" if verdict.at_least is not None else f"≤ {verdict.at_most:g}"


def _reached(verdict: Verdict) -> str:
    return "reached" if verdict.reached else "missed"


def _plot(row: Row, run: Run) -> None:
    """One panel for each figure of a target, or of the first side: bars by side, or a curve along the axis."""
    figures = list(dict.fromkeys(verdict.figure for verdict in run.verdicts)) or list(next(iter(run.sides.values())))
    fig, panels = plt.subplots(1, len(figures), figsize=(3.2 * len(figures), 2.6), squeeze=False, layout="constrained")
    for panel, figure in zip(panels[0], figures, strict=True):
        shown = {side: found[figure] for side, found in run.sides.items() if figure in found}
        medians = [statistics.median(values) for values in shown.values()]
        spread = [
            [median - min(values) for median, values in zip(medians, shown.values(), strict=True)],
            [max(values) - median for median, values in zip(medians, shown.values(), strict=True)],
        ]
        if row.axis:
            panel.errorbar([float(side) for side in shown], medians, yerr=spread, marker="o", capsize=2)
            panel.set(xscale="log", xlabel=row.axis, ylabel=figure, ylim=(0, None))
        else:
            panel.barh(list(shown), medians, xerr=spread, color="#4c78a8", ecolor="#333", capsize=2)
            panel.invert_yaxis()
            panel.set(xlabel=figure)
    fig.savefig(PLOTS / f"{row.name}.svg", metadata={"Date": None})
    plt.close(fig)


if __name__ == "__main__":
    main()
