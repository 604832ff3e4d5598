"""A worker of stage-onnx whose conversion only waits, for `capacity.py`."""

from __future__ import annotations

import time
from pathlib import Path

from converter.common.conversion import Conversion, ConversionTask, Progress
from converter.common.isolation import Confinement
from converter.common.stage.entry import run_stage
from converter.common.stage.policy import StageConverter, StageSpec
from converter.contracts.job import Stage, Toolchain

WAIT_S = 0.5


def convert(task: ConversionTask, progress: Progress) -> Conversion:
    """Wait, and hand on the model."""
    progress(0.5, "waiting")
    time.sleep(WAIT_S)
    artifact = task.workdir / "out.onnx"
    artifact.write_bytes(task.inputs["model"].read_bytes())
    return Conversion(
        artifact=artifact,
        filename="out.onnx",
        media_type="application/octet-stream",
        toolchain=Toolchain(name="waiting", version="1"),
        report={},
    )


if __name__ == "__main__":
    sources = Confinement(sources=(Path(__file__).parent,))
    waiting = StageConverter(function="waiting_stage:convert", confinement=lambda _: sources)
    run_stage(StageSpec(stage=Stage.ONNX, inputs=("model",), converters={"reference": waiting}))
