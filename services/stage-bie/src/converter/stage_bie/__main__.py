"""The stage `bie`: data, and a converter."""

from __future__ import annotations

from converter.common.stage.entry import run_stage
from converter.common.stage.policy import StageConverter, StageSpec
from converter.contracts.job import Stage
from converter.contracts.quantization import KEYWORDS, QUANTISING
from converter.kneron import deployment
from converter.toolchain import reference

STAGE = StageSpec(
    stage=Stage.BIE,
    inputs=("onnx", "ref_images"),
    converters={
        "reference": StageConverter(
            function="converter.stage_bie.reference:convert",
            options=("preprocess",),
            keywords=QUANTISING,
            identity=reference.identity,
        ),
        "kneron": StageConverter(
            function="converter.kneron.bie:convert",
            options=("preprocess",),
            # All: what the compiler is told, the vendor's analysis is told too.
            keywords=tuple(KEYWORDS),
            identity=deployment.identity,
            confinement=deployment.confinement,
        ),
    },
)

if __name__ == "__main__":
    run_stage(STAGE)
