"""Converts a model in this process, once and then so many times that are timed; for rows/jail.py.

python benchmarks/calling.py JOBS MODEL IMAGES DIRECTORY
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
import time
from pathlib import Path

from conversions import CONVERTERS, task

from converter.contracts.job import STAGES


def job_s(model: Path, images: Path, place: Path) -> float:
    """How long the three conversions took, without what is around them."""
    place.mkdir()
    taken_s = 0.0
    for stage in STAGES:
        convert = importlib.import_module(CONVERTERS[stage]).convert
        given = task(stage, model, place / stage, images)
        with contextlib.redirect_stdout(io.StringIO()):
            began = time.perf_counter()
            model = convert(given, lambda _fraction, _activity: None).artifact
            taken_s += time.perf_counter() - began
    return taken_s


def main() -> None:
    """Convert, and say what it took."""
    jobs, model, images, directory = int(sys.argv[1]), *map(Path, sys.argv[2:])
    directory.mkdir()
    taken = [job_s(model, images, directory / str(job)) for job in range(jobs + 1)]
    sys.stdout.write(json.dumps(taken[1:]))


if __name__ == "__main__":
    main()
