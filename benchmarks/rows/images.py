"""The bie stage in its jail, with 1, 10 and 100 images.

SqueezeNet with random weights, for pictures of 128 by 128; the images are the demo's digits, stretched to that. Range
method mmse, which keeps the most. Time and memory are the warden's: of the conversion's processes alone. Of fewer than
20 images none is held out, and all are both calibrated with and judged on; of 100, 80 are calibrated with and 20 judged
on. Each image is decoded, run and let go before the next one, so that memory does not grow with their number.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path

from conversions import CONVERTERS, converted, digit_images, jail, run, squeezenet, task
from harness import Row, Side, Target

from converter.common.conversion import ConversionTask
from converter.common.isolation import Isolation
from converter.contracts.job import Options, Stage

COUNTS = (1, 10, 100)
PER_IMAGE, PEAK = "ms per image", "peak MB"
SIDE = 128
OPTIONS = Options(quantization={"datapath_range_method": "mmse"})


@contextlib.asynccontextmanager
async def sides(directory: Path) -> AsyncIterator[Sequence[Side]]:
    """One jail for all."""
    async with jail() as isolation:
        model = await squeezenet(isolation, directory / "model", SIDE)
        places = (directory / str(number) for number in count())

        async def measure(images: int) -> Mapping[str, float]:
            given = task(Stage.BIE, model, next(places), digit_images(directory, images), OPTIONS)
            return await _measured(isolation, given, images)

        yield [Side(str(images), partial(measure, images)) for images in COUNTS]


async def _measured(isolation: Isolation, given: ConversionTask, images: int) -> Mapping[str, float]:
    taken = converted(await run(isolation, CONVERTERS[Stage.BIE], given)).run
    return {
        "s": taken.duration_s,
        PER_IMAGE: 1000 * taken.duration_s / images,
        PEAK: taken.peak_memory_bytes / 1e6,
    }


ROW = Row(
    name="images",
    title="Reference images",
    text=__doc__ or "",
    sides=sides,
    targets=[
        Target(PER_IMAGE, "100", "10", at_most=1.0),
        Target(PEAK, "100", "1", at_most=1.1),
    ],
    axis="images",
)
