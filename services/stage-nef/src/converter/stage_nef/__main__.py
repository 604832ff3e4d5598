"""The stage `nef`: data, and a converter."""

from __future__ import annotations

from converter.common.stage.entry import run_stage
from converter.common.stage.policy import StageConverter, StageSpec
from converter.contracts.job import Stage
from converter.contracts.quantization import COMPILING
from converter.kneron import deployment
from converter.toolchain import reference

STAGE = StageSpec(
    stage=Stage.NEF,
    inputs=("bie",),
    converters={
        "reference": StageConverter(
            function="converter.stage_nef.reference:convert", keywords=COMPILING, identity=reference.identity
        ),
        "kneron": StageConverter(
            function="converter.kneron.nef:convert",
            keywords=COMPILING,
            identity=deployment.identity,
            confinement=deployment.confinement,
        ),
    },
)

if __name__ == "__main__":
    run_stage(STAGE)
