"""Every report of this toolchain is what the published schema says, all of its fields described."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from published import validator

from converter.common.conversion import Conversion
from converter.contracts.report.stage import Run

from .conftest import Digits
from .workshop import Workshop, a_detector, a_pair_model


def check(stage: str, conversion: Conversion) -> None:
    """As the stage stores it."""
    stored = msgspec.json.encode({**conversion.report, "warnings": conversion.warnings, "run": Run()})
    validator("report", f"{stage.capitalize()}Report").validate(msgspec.json.decode(stored))


@pytest.mark.parametrize("stage", ["onnx", "bie", "nef"])
def test_those_of_the_demo(digits: Digits, stage: str):
    check(stage, getattr(digits, stage))


def stages_of(made: tuple[Conversion, ...]) -> Iterator[tuple[str, Conversion]]:
    return zip(("onnx", "bie", "nef"), made, strict=True)


def test_those_of_a_ladder_with_files_that_were_skipped(
    workshop: Workshop, digits: Digits, digit_images: list[tuple[str, bytes]]
):
    images = workshop.archive([*digit_images[:30], ("broken.png", b"nothing")])
    made = workshop.bie(digits.onnx.artifact, images, ladder="auto", min_snr_db=30)
    assert len(made.report["ladder"]["curve"]) > 1
    assert made.report["calibration"]["skipped"]
    check("bie", made)


def test_those_of_several_inputs_and_outputs_without_data(workshop: Workshop):
    for model in (a_detector(), a_pair_model()):
        for stage, made in stages_of(workshop.all(model)):
            check(stage, made)
