"""The stage `onnx`: data, and a converter."""

from __future__ import annotations

from converter.common.stage.entry import run_stage
from converter.common.stage.policy import StageConverter, StageSpec
from converter.contracts.job import Stage
from converter.kneron import deployment
from converter.toolchain import reference

STAGE = StageSpec(
    stage=Stage.ONNX,
    inputs=("model",),
    converters={
        "reference": StageConverter(
            function="converter.stage_onnx.reference:convert",
            options=("input_shape",),
            identity=reference.identity,
        ),
        "kneron": StageConverter(
            function="converter.kneron.onnx:convert",
            options=("input_shape",),
            identity=deployment.identity,
            confinement=deployment.confinement,
        ),
    },
)

if __name__ == "__main__":
    run_stage(STAGE)
