"""A job's three conversions, each in its jail as in production, beside the same converters called in one process.

That process has imported the converters and done the job once before; the one that the jail forks has imported them,
too. A job's time is that of its three conversions and of what the jail does for each: fork, confinement, watch, pipes,
and the check of what comes out of it. Not in it, on either side: the copies of inputs, storage, messages. Usual:
SqueezeNet with random weights and the demo's 100 images. Small: the demo's model and the same images, a fifth of a
second of work. A round is the median of some jobs. "Nothing" converts nothing, so that all of its time is the jail's.

What the jail takes hardly grows with the job: of a small one it is more than the part that is asked for. Half of it is
not the jail's own: a new process has to be given each page of memory that one which converted before still holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path

from conversions import CONVERTERS, converted, digit_images, jail, run, squeezenet, task
from harness import Row, Side, Target

from converter.common.isolation import Confinement, Isolation
from converter.contracts.job import STAGES, Stage
from converter.devstack.demo import DATA

MS = "ms per job"
JAILED, CALLED = "in the jail", "in process"
USUAL, SMALL, NOTHING = "usual", "small", "nothing"
JOBS = {USUAL: 1, SMALL: 7, NOTHING: 15}
"""A round's."""
PICTURE_SIDE = 224
BENCHMARKS = Path(__file__).parent.parent
EMPTY = "no_conversion"


@contextlib.asynccontextmanager
async def sides(directory: Path) -> AsyncIterator[Sequence[Side]]:
    """A jail of the converters, one of nothing, and the models."""
    images, places = digit_images(directory), (directory / str(number) for number in count())
    nothing = Isolation(preload=[EMPTY], confinement=Confinement(sources=(BENCHMARKS,)))
    async with jail() as isolation, nothing as empty:
        models = {
            USUAL: await squeezenet(isolation, directory / "model", PICTURE_SIDE),
            SMALL: DATA / "digits_cnn.onnx",
        }

        async def jailed(within: Isolation, module: Callable[[Stage], str], size: str) -> Mapping[str, float]:
            model = models.get(size, models[SMALL])
            jobs = [await _job_s(within, module, model, images, next(places)) for _ in range(JOBS[size])]
            return {MS: 1000 * statistics.median(jobs)}

        async def called(size: str) -> Mapping[str, float]:
            jobs = await _called(JOBS[size], models[size], images, next(places))
            return {MS: 1000 * statistics.median(jobs)}

        yield [
            Side(f"{NOTHING}, {JAILED}", partial(jailed, empty, lambda _: EMPTY, NOTHING)),
            Side(f"{USUAL}, {JAILED}", partial(jailed, isolation, CONVERTERS.__getitem__, USUAL)),
            Side(f"{USUAL}, {CALLED}", partial(called, USUAL)),
            Side(f"{SMALL}, {JAILED}", partial(jailed, isolation, CONVERTERS.__getitem__, SMALL)),
            Side(f"{SMALL}, {CALLED}", partial(called, SMALL)),
        ]


async def _job_s(isolation: Isolation, module: Callable[[Stage], str], model: Path, images: Path, place: Path) -> float:
    place.mkdir()
    taken_s = 0.0
    for stage in STAGES:
        given = task(stage, model, place / stage, images)
        began = time.perf_counter()
        model = converted(await run(isolation, module(stage), given)).conversion.artifact
        taken_s += time.perf_counter() - began
    return taken_s


async def _called(jobs: int, model: Path, images: Path, place: Path) -> list[float]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(BENCHMARKS / "calling.py"), str(jobs), str(model), str(images), str(place)),
        stdout=asyncio.subprocess.PIPE,
        # As the jail has it: one conversion is not to take the cores from the others.
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise SystemExit("the conversion in process failed")
    taken_s: list[float] = json.loads(said)
    return taken_s


ROW = Row(
    name="jail",
    title="Conversions in their jail",
    text=__doc__ or "",
    sides=sides,
    targets=[
        Target(MS, f"{NOTHING}, {JAILED}", at_most=50),
        Target(MS, f"{USUAL}, {JAILED}", f"{USUAL}, {CALLED}", at_most=1.05),
        Target(MS, f"{SMALL}, {JAILED}", f"{SMALL}, {CALLED}", at_most=1.05),
    ],
)
