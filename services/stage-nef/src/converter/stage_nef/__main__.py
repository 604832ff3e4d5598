"""The stage `nef`: data, and a converter."""

from __future__ import annotations

from converter.common.stage.entry import run_stage
from converter.common.stage.policy import StageSpec
from converter.contracts.job import Stage
from converter.kneron.deployment import confinement

STAGE = StageSpec(
    stage=Stage.NEF,
    inputs=("bie",),
    converters={"reference": "converter.stage_nef.reference:convert", "kneron": "converter.kneron.nef:convert"},
    confinements={"kneron": confinement},
)

if __name__ == "__main__":
    run_stage(STAGE)
