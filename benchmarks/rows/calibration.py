"""Calibrating a model with 100 images and writing its quantised one, beside ONNX Runtime's `quantize_static`.

SqueezeNet with random weights as the onnx stage leaves it, for pictures of 128 by 128; the images are the demo's
digits, stretched to that by the same code on both sides. Each side does all of it in a fresh process: both write 8-bit
QDQ, per channel, asymmetric. `quantize_static` is told what it is told on this side, and to centre no range (its own
wish for percentiles).

Time is from the first image to the quantised model. Memory is the process's largest resident size (VmHWM) above what it
holds with its libraries imported, before it loads the model: the model itself counts on both sides. SNR is that of the
quantised model's output on eight of the images: whether time or memory were had for accuracy. Most of the difference
comes from the range of the Softmax, which ONNX Runtime takes to be 0 to 1 and the converter finds.

Least square error is what the keyword mmse means, which ONNX Runtime has not: Entropy stands beside it, by its default
with 128 bins for 128 levels, which leave it nothing to choose. Minima and maxima are shown without a target.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path

from conversions import digit_images, jail, squeezenet
from harness import Row, Side, Target

PROGRAM = Path(__file__).parent.parent / "calibrating.py"
SIDE = 128
OURS, THEIRS = "converter", "quantize_static"
METHODS = {
    "mmse": ("LeastSquareError", "Entropy"),
    "percentage": ("Percentile", "Percentile"),
    "extremes": ("MinMax", "MinMax"),
}


@contextlib.asynccontextmanager
async def sides(directory: Path) -> AsyncIterator[Sequence[Side]]:
    """The model; processes are started by their rounds."""
    async with jail() as isolation:
        model = await squeezenet(isolation, directory / "model", SIDE)
    images, places = digit_images(directory), (directory / str(number) for number in count())

    async def measure(side: str, method: str) -> Mapping[str, float]:
        place = next(places)
        place.mkdir()
        arguments = (side, method, str(model), str(images), str(place))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(PROGRAM), *arguments), stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        if process.returncode:
            raise SystemExit(f"{side} did not calibrate")
        found: dict[str, float] = json.loads(said.splitlines()[-1])
        return found

    yield [
        Side(f"{name}, {method}", partial(measure, side, method))
        for methods in METHODS.values()
        for (side, name), method in zip((("ours", OURS), ("theirs", THEIRS)), methods, strict=True)
    ]


def _targets(ours: str, theirs: str) -> list[Target]:
    sides_of_it = (f"{OURS}, {ours}", f"{THEIRS}, {theirs}")
    return [Target("s", *sides_of_it, at_most=1.0), Target("MB", *sides_of_it, at_most=0.1)]


ROW = Row(
    name="calibration",
    title="Calibration with 100 images",
    text=__doc__ or "",
    sides=sides,
    targets=[*_targets(*METHODS["mmse"]), *_targets(*METHODS["percentage"])],
)
