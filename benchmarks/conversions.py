"""Stages of the reference toolchain, each in its jail as in production."""

from __future__ import annotations

import asyncio
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import onnx
from generated_model import LIGHT, with_random_weights

from converter.common.conversion import ConversionTask
from converter.common.isolation import Converted, Isolation, Limits, Outcome
from converter.contracts.job import STAGES, Options, Stage
from converter.devstack.demo import DATA

CONVERTERS = {stage: f"converter.stage_{stage}.reference" for stage in STAGES}
LIMITS = Limits(timeout_s=1800, memory_mb=6000)
SOURCE = {Stage.ONNX: "model", Stage.BIE: "onnx", Stage.NEF: "bie"}
_WITHOUT = Options()


def jail() -> Isolation:
    """One that has imported all converters."""
    return Isolation(preload=list(CONVERTERS.values()))


def task(
    stage: Stage, source: Path, workdir: Path, images: Path | None = None, options: Options = _WITHOUT
) -> ConversionTask:
    """What `stage` is to do with copies of its inputs in `workdir`, which is made."""
    workdir.mkdir()
    inputs = {SOURCE[stage]: source} | ({"ref_images": images} if images and stage is Stage.BIE else {})
    return ConversionTask(
        workdir=workdir,
        inputs={role: Path(shutil.copyfile(path, workdir / role)) for role, path in inputs.items()},
        filename="model.onnx",
        platform="720",
        model_id=32768,
        version="0001",
        options=options,
    )


async def run(isolation: Isolation, module: str, given: ConversionTask) -> Outcome:
    """Have it done by the `convert` of `module`."""
    return await isolation.run(f"{module}:convert", given, LIMITS, on_progress=_ignored, cancel=asyncio.Event())


def converted(outcome: Outcome) -> Converted:
    """`outcome`, where it is a success.

    Raises:
        SystemExit: it is not.
    """
    if not isinstance(outcome, Converted):
        raise SystemExit(f"a stage did not convert: {outcome}")
    return outcome


async def through(
    isolation: Isolation, source: Path, workdir: Path, images: Path | None = None, options: Options = _WITHOUT
) -> Mapping[Stage, Converted]:
    """All stages, one after the other, below `workdir`, which is made.

    Raises:
        SystemExit: one did not convert.
    """
    workdir.mkdir()
    done: dict[Stage, Converted] = {}
    for stage in STAGES:
        given = task(stage, source, workdir / stage, images, options)
        done[stage] = converted(await run(isolation, CONVERTERS[stage], given))
        source = done[stage].conversion.artifact
    return done


def digit_images(directory: Path, count: int = 100) -> Path:
    """A reference set of the demo's images, in `directory`."""
    path = directory / f"{count}_images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for picture in sorted((DATA / "digits_calibration").glob("*.png"))[:count]:
            archive.write(picture, picture.name)
    return path


async def squeezenet(isolation: Isolation, workdir: Path, side: int) -> Path:
    """SqueezeNet with random weights for pictures of `side` by `side`, as the onnx stage leaves it; makes `workdir`."""
    workdir.mkdir()
    source = workdir / "squeezenet.onnx"
    onnx.save(with_random_weights(LIGHT / "light_squeezenet.onnx"), source)
    given = task(Stage.ONNX, source, workdir / "onnx", options=Options(input_shape={"": (1, 3, side, side)}))
    return converted(await run(isolation, CONVERTERS[Stage.ONNX], given)).conversion.artifact


def _ignored(fraction: float, activity: str) -> None:
    """Nobody watches."""
