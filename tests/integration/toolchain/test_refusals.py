"""What a model or a reference set is refused for, and that the words help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from converter.common.conversion import ConversionRefused
from converter.contracts.failures import FAILURES

from .conftest import Digits
from .workshop import Workshop, a_detector, a_model, a_pair_model, random

node = helper.make_node


def refused(convert: object, *arguments: object, **options: object) -> ConversionRefused:
    with pytest.raises(ConversionRefused) as refusal:
        convert(*arguments, **options)
    assert FAILURES[refusal.value.code].hint
    return refusal.value


def test_dynamic_dimensions_are_named_and_then_fixed(workshop: Workshop):
    refusal = refused(workshop.onnx, a_detector("side"))
    assert refusal.code == "input_shape_required"
    assert "axis 2 (side) of the input 'image'" in refusal.message

    fixed = workshop.onnx(a_detector("side"), image=(1, 3, 64, 48))
    assert fixed.report["result"]["inputs"][0]["shape"] == [1, 3, 64, 48]
    assert fixed.report["result"]["outputs"][0]["shape"] == [1, 8, 16, 12]


def test_a_shape_without_a_name_is_for_the_only_input(workshop: Workshop):
    fixed = workshop.onnx(a_detector("side"), **{"": (1, 3, 32, 32)})
    assert fixed.report["result"]["inputs"][0]["shape"] == [1, 3, 32, 32]
    refusal = refused(workshop.onnx, a_pair_model(), **{"": (1, 4)})
    assert "features, ids" in refusal.message


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"picture": (1, 3, 32, 32)}, "names picture; the model's inputs are image"),
        ({"image": (3, 32, 32)}, "has 4 axes, input_shape gives 3"),
        ({"image": (1, 5, 32, 32)}, "running the model failed"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(workshop: Workshop, shape: dict[str, tuple[int, ...]], words: str):
    refusal = refused(workshop.onnx, a_detector("side"), **shape)
    assert refusal.code == "input_shape_required"
    assert words in refusal.message


def test_a_broken_model_is_refused_with_its_node(workshop: Workshop):
    model = a_model(
        [node("Conv", ["x", "w"], ["y"], name="first")], {"x": [1, 3, 8, 8]}, {"y": None}, {"w": random(4, 5, 3, 3)}
    )
    refusal = refused(workshop.onnx, model)
    assert (refusal.code, refusal.node, refusal.op) == ("model_invalid", "first", "Conv")
    assert refusal.evidence


def test_an_unknown_operator_is_refused_by_name(workshop: Workshop):
    refusal = refused(workshop.onnx, a_model([node("Swizzle", ["x"], ["y"])], {"x": [1, 3]}, {"y": [1, 3]}))
    assert (refusal.code, refusal.op) == ("model_invalid", "Swizzle")


def test_weights_that_are_no_numbers_are_refused_by_name(workshop: Workshop):
    weights = {"scale": np.array([1, np.nan, 1], np.float32)}
    refusal = refused(workshop.onnx, a_model([node("Mul", ["x", "scale"], ["y"])], {"x": [1, 3]}, {"y": None}, weights))
    assert refusal.code == "model_invalid"
    assert "'scale'" in refusal.message


def test_an_operator_that_the_runtime_lacks_makes_a_model_unsupported(workshop: Workshop):
    # Valid ONNX, but ONNX Runtime has this operator for float32 alone.
    model = a_model([node("Elu", ["x"], ["y"], name="smooth")], {"x": [1, 3]}, {"y": None})
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    refusal = refused(workshop.onnx, model)
    assert (refusal.code, refusal.node, refusal.op) == ("model_unsupported", "smooth", "Elu")


def test_a_file_that_is_no_model_is_called_by_its_name(workshop: Workshop):
    path = workshop.root / "model.onnx"
    path.write_bytes(b"PK\x03\x04" + b"\0" * 100)
    refusal = refused(workshop.onnx, path)
    assert refusal.code == "model_invalid"
    assert "ZIP" in refusal.message


def test_a_model_that_is_cut_off_is_refused(workshop: Workshop, digits: Digits):
    path = workshop.root / "cut.onnx"
    path.write_bytes(digits.source.read_bytes()[:50_000])
    assert refused(workshop.onnx, path).code == "model_invalid"


def test_an_opset_that_cannot_be_reached_is_refused(workshop: Workshop):
    # Gelu is an operator of its own from opset 20 on; nothing before has it.
    model = a_model([node("Gelu", ["x"], ["y"])], {"x": [1, 3]}, {"y": None}, opset=20)
    model.ir_version = 9
    refusal = refused(workshop.onnx, model)
    assert refusal.code == "opset_unsupported"
    assert refusal.evidence


def test_a_newer_opset_is_brought_down_where_nothing_newer_is_used(workshop: Workshop):
    model = a_model([node("Relu", ["x"], ["y"])], {"x": [1, 3]}, {"y": None}, opset=20)
    model.ir_version = 9
    report = workshop.onnx(model).report
    assert (report["source"]["opset"], report["result"]["opset"], report["result"]["ir_version"]) == (20, 18, 8)


def test_unreadable_images_are_skipped_and_listed(
    workshop: Workshop, digits: Digits, digit_images: list[tuple[str, bytes]]
):
    name, content = digit_images[0]
    files = [*digit_images[1:30], ("cut.png", content[: len(content) // 2]), ("text.png", b"no image"), (name, content)]
    calibration = workshop.bie(digits.onnx.artifact, workshop.archive(files)).report["calibration"]
    assert [skipped["name"] for skipped in calibration["skipped"]] == ["cut.png", "text.png"]
    assert all(skipped["reason"] for skipped in calibration["skipped"])
    assert calibration["count"] == 32


def test_equal_images_count_once(workshop: Workshop, digits: Digits, digit_images: list[tuple[str, bytes]]):
    twice = [*digit_images[:10], *((f"again_{name}", content) for name, content in digit_images[:10])]
    conversion = workshop.bie(digits.onnx.artifact, workshop.archive(twice))
    calibration = conversion.report["calibration"]
    assert (calibration["count"], calibration["unique"], calibration["used"]) == (20, 10, 10)
    assert "none was held out" in conversion.warnings[0]
    assert not conversion.report["accuracy"]["held_out"]


@pytest.mark.parametrize(
    "files",
    [[], [("a.png", b"no image"), ("b.png", b"")], [(f"{number}.png", b"no image") for number in range(3)]],
    ids=["no files", "no images", "the same three times"],
)
def test_a_set_without_a_readable_image_is_refused(workshop: Workshop, digits: Digits, files: list[tuple[str, bytes]]):
    refusal = refused(workshop.bie, digits.onnx.artifact, workshop.archive(files))
    assert refusal.code == "calibration_unreadable"
    assert f"none of the {len(files)} reference files" in str(refusal)


def test_a_set_that_is_no_archive_is_refused(workshop: Workshop, digits: Digits):
    path = workshop.root / "set.zip"
    path.write_bytes(b"no archive")
    assert refused(workshop.bie, digits.onnx.artifact, path).code == "calibration_unreadable"


def test_images_for_a_model_that_takes_none_are_refused(workshop: Workshop, digit_images: list[tuple[str, bytes]]):
    static = workshop.onnx(a_pair_model())
    refusal = refused(workshop.bie, static.artifact, workshop.archive(digit_images[:2]))
    assert refusal.code == "calibration_mismatch"
    assert "features float32[1, 4], ids int64[1, 3]" in refusal.message


def test_accuracy_below_the_clients_minimum_is_refused_with_the_figure(workshop: Workshop, digits: Digits):
    refusal = refused(workshop.bie, digits.onnx.artifact, digits.images, min_snr_db=60)
    assert refusal.code == "accuracy_below_minimum"
    assert "'logits' has an SNR of 2" in refusal.message
    assert workshop.bie(digits.onnx.artifact, digits.images, min_snr_db=15).report["verdict"] == "good"


def test_a_bie_that_is_something_else_is_refused(workshop: Workshop, tmp_path: Path):
    other = tmp_path / "other.bie"
    onnx.save(a_pair_model(), other)
    assert refused(workshop.nef, other).code == "artifact_corrupt"
