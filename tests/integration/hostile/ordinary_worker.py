"""A worker that meets models of each kind of end, and says what became of them and as whom."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from conversions import CONVERTERS, task
from integration.hostile.models import DIGITS, MODELS
from integration.isolation.bench import MODULE, SOURCES

from converter.common.isolation import Confinement, Isolation, Limits
from converter.common.stage.workdirs import workdirs
from converter.contracts.job import Stage

CONVERTER = f"{CONVERTERS[Stage.ONNX]}:convert"
PATIENT = Limits(timeout_s=60, memory_mb=1024)
MODELS_AND_LIMITS = {
    "an endless loop": PATIENT,
    "hours of products": Limits(timeout_s=2, memory_mb=4096),
    "an input of 8 GB": PATIENT,
    "the least integer over minus one": PATIENT,
    "a locked directory in place of its log": PATIENT,
    "a good one": PATIENT,
}
TAKEN_OVER = {"a locked directory in place of its log": f"{MODULE}:puts_a_locked_directory_in_place_of_its_log"}
"""Converters that a model has taken over."""


async def main(root: Path) -> None:
    told = {}
    async with (
        Isolation(preload=[CONVERTERS[Stage.ONNX], MODULE], confinement=Confinement(sources=(SOURCES,))) as isolation,
        workdirs(root) as places,
    ):
        for name, limits in MODELS_AND_LIMITS.items():
            model = root / "model.onnx"
            model.write_bytes(MODELS[name]() if name in MODELS else DIGITS)
            async with places.one() as place:
                outcome = await isolation.run(
                    TAKEN_OVER.get(name, CONVERTER),
                    task(Stage.ONNX, model, place / "attempt"),
                    limits,
                    on_progress=lambda _fraction, _activity: None,
                    cancel=asyncio.Event(),
                )
            confined = outcome.run.isolation
            told[name] = [type(outcome).__name__, confined.uid if confined else None]
    sys.stdout.write(json.dumps({"ends": told, "left": [path.name for path in root.iterdir()]}))


asyncio.run(main(Path(sys.argv[1])))
