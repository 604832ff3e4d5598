"""All three stages, each in its jail, of generated models of 1 to 500 MB.

Convolutions of 512 channels with random weights, so that the weights are nearly all of the file; ten images. Time is
the sum of the stages', memory the largest of theirs, both the warden's: of the conversions' processes alone. A stage
takes at most 120 MiB and eight times the model (docs/models.md); "of the bound" is the part of that which the largest
took. Memory for each MB falls with the size, as what a stage takes of any model is shared by more of it; time for each
MB stays about the same from 10 MB on.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path

import onnx
from conversions import digit_images, jail, through
from generated_model import convolutions
from harness import Row, Side, Target

MEGABYTES = (1, 10, 100, 500)
IMAGES = 10
S_PER_MB, MB_PER_MB, OF_THE_BOUND = "s per MB", "peak MB per MB", "of the bound"
IDLE_BYTES, TIMES_THE_MODEL = 120 << 20, 8


@contextlib.asynccontextmanager
async def sides(directory: Path) -> AsyncIterator[Sequence[Side]]:
    """The models, and one jail for all."""
    places = (directory / str(number) for number in count())
    images = digit_images(directory, IMAGES)
    async with jail() as isolation:

        async def measure(model: Path) -> Mapping[str, float]:
            place = next(places)
            runs = [stage.run for stage in (await through(isolation, model, place, images)).values()]
            shutil.rmtree(place)
            seconds, peak = sum(run.duration_s for run in runs), max(run.peak_memory_bytes for run in runs)
            size = model.stat().st_size
            return {
                "s": seconds,
                S_PER_MB: seconds / (size / 1e6),
                "peak MB": peak / 1e6,
                MB_PER_MB: peak / size,
                OF_THE_BOUND: peak / (IDLE_BYTES + TIMES_THE_MODEL * size),
            }

        yield [Side(str(size), partial(measure, _generated(directory, size))) for size in MEGABYTES]


def _generated(directory: Path, megabytes: int) -> Path:
    path = directory / f"{megabytes}.onnx"
    onnx.save(convolutions(megabytes), path)
    return path


ROW = Row(
    name="model_size",
    title="Models of different size",
    text=__doc__ or "",
    sides=sides,
    targets=[
        target
        for size in ("100", "500")
        for target in (
            Target(S_PER_MB, size, "10", at_most=1.0),
            Target(MB_PER_MB, size, "10", at_most=1.0),
            Target(OF_THE_BOUND, size, at_most=1.0),
        )
    ],
    axis="MB",
)
