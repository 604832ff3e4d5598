"""Models of other kinds than the demo's, and the choices of quantisation."""

from __future__ import annotations

import io

import numpy as np
import onnx
import pytest
from generated_model import LIGHT, with_random_weights
from onnx import helper, numpy_helper

from converter.toolchain import loader

from .conftest import Digits
from .workshop import (
    Workshop,
    a_detector,
    a_detector_of_three_scales,
    a_model,
    a_pair_model,
    random,
)

node = helper.make_node


def test_without_images_calibration_is_made_up_and_says_so(workshop: Workshop, digits: Digits):
    conversion = workshop.bie(digits.onnx.artifact)
    assert conversion.report["calibration"]["origin"] == "synthetic"
    assert "made-up data" in conversion.warnings[0]
    assert conversion.report["warnings"] == list(conversion.warnings)


def test_a_detector_with_two_outputs_is_judged_by_its_worse_one(
    workshop: Workshop, digit_images: list[tuple[str, bytes]]
):
    _, quantised, package = workshop.all(a_detector(), workshop.archive(digit_images[:25]))
    accuracy = quantised.report["accuracy"]
    figures = {output["name"]: output["simulated"]["snr_db"] for output in accuracy["outputs"]}
    assert set(figures) == {"boxes", "scores"}
    assert accuracy["snr_db"] == min(figures.values()) > 20
    assert accuracy["top1_agreement"] is None
    assert set(package.report["self_test"]["as_written"]) == {"boxes", "scores"}


def test_a_detector_of_three_scales_is_judged_by_each_of_its_six_outputs(
    workshop: Workshop, digit_images: list[tuple[str, bytes]]
):
    _, quantised, package = workshop.all(a_detector_of_three_scales(), workshop.archive(digit_images[:25]))
    outputs = quantised.report["accuracy"]["outputs"]
    assert [output["name"] for output in outputs] == [
        f"{scale}_{part}" for scale in ("coarse", "middle", "fine") for part in ("boxes", "scores")
    ]
    assert min(output["simulated"]["snr_db"] for output in outputs) == quantised.report["accuracy"]["snr_db"] > 15
    assert quantised.report["quantisation"]["float_fallback_operators"] == {}
    artifact = loader.load(package.artifact)
    answers = artifact.run_file(digit_images[30][1])
    assert {name: array.shape for name, array in answers.items() if name.endswith("boxes")} == {
        "coarse_boxes": (1, 4, 4, 4),
        "middle_boxes": (1, 4, 8, 8),
        "fine_boxes": (1, 4, 16, 16),
    }


def test_two_inputs_are_calibrated_with_arrays_by_name(workshop: Workshop):
    rng = np.random.default_rng(1)
    files = []
    for index in range(24):
        buffer = io.BytesIO()
        np.savez(buffer, features=rng.standard_normal((1, 4), np.float32), ids=rng.integers(0, 10, (1, 3)))
        files.append((f"{index}.npz", buffer.getvalue()))
    static, quantised, package = workshop.all(a_pair_model(), workshop.archive(files))
    assert [spec["name"] for spec in static.report["result"]["inputs"]] == ["features", "ids"]
    assert quantised.report["calibration"]["used"] == 20
    assert quantised.report["accuracy"]["snr_db"] > 20
    artifact = loader.load(package.artifact)
    assert artifact.run_file(files[0][1])["out"].shape == (1, 6)
    assert artifact.preprocessing is None


def test_two_inputs_without_data_are_calibrated_with_made_up_data(workshop: Workshop):
    _, quantised, package = workshop.all(a_pair_model())
    assert quantised.report["calibration"]["origin"] == "synthetic"
    assert package.report["self_test"]["passed"]


@pytest.mark.parametrize("layout", ["grey", "NHWC"])
def test_grey_and_channels_last_models_take_images(
    workshop: Workshop, digit_images: list[tuple[str, bytes]], layout: str
):
    grey = a_model(
        [node("Conv", ["x", "w"], ["y"], name="c")], {"x": [1, 1, 16, 16]}, {"y": None}, {"w": random(2, 1, 3, 3)}
    )
    last = a_model(
        [node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2], name="t"), node("Conv", ["t", "w"], ["y"], name="c")],
        {"x": [1, 16, 16, 3]},
        {"y": None},
        {"w": random(2, 3, 3, 3)},
    )
    model, channels = (grey, 1) if layout == "grey" else (last, 3)
    report = workshop.all(model, workshop.archive(digit_images[:4]))[1].report
    assert (report["preprocess"]["layout"], report["preprocess"]["channels"]) == (
        "NCHW" if layout == "grey" else "NHWC",
        channels,
    )


@pytest.mark.parametrize(
    ("keywords", "method"),
    [
        ({}, "MinMax"),
        ({"datapath_range_method": "percentage", "percentage": 0.9999}, "Percentile"),
        ({"datapath_range_method": "mmse"}, "LeastSquareError"),
    ],
)
def test_range_methods(workshop: Workshop, digits: Digits, keywords: dict[str, object], method: str):
    report = workshop.bie(digits.onnx.artifact, digits.images, **keywords).report
    assert report["quantisation"]["range_method"] == method
    assert report["accuracy"]["snr_db"] > 20


def test_keywords_that_mean_nothing_here_are_warned_of(workshop: Workshop, digits: Digits):
    conversion = workshop.bie(digits.onnx.artifact, digits.images, optimize=2, flops_ratio=0.3)
    assert "flops_ratio, optimize" in conversion.warnings[0]
    assert conversion.report["quantisation"]["ignored_keywords"] == ["flops_ratio", "optimize"]


def test_many_small_probabilities_survive_quantisation(workshop: Workshop):
    """ONNX Runtime would quantise the output of Softmax over 0..1, where a thousandth is less than half a step."""
    model = a_model(
        [
            node("Flatten", ["x"], ["f"], name="flatten"),
            node("Gemm", ["f", "w"], ["g"], name="scores", transB=1),
            node("Softmax", ["g"], ["p"], name="softmax"),
        ],
        {"x": [1, 3, 8, 8]},
        {"p": None},
        {"w": 0.05 * random(1000, 192)},
    )
    report = workshop.bie(workshop.onnx(model).artifact).report
    assert report["accuracy"]["snr_db"] > 20
    assert report["accuracy"]["outputs"][0]["collapsed_channels_count"] == 0


def test_a_model_that_collapses_is_found_out(workshop: Workshop):
    """One channel a million times as large as the others leaves these less than a step of the common range."""
    spread = np.array([1e6, 1, 1], np.float32).reshape(3, 1, 1, 1)
    gathered = np.diag([1e-6, 1, 1]).astype(np.float32).reshape(3, 3, 1, 1)
    model = a_model(
        [
            node("Conv", ["x", "spread"], ["s"], name="spread"),
            node("Relu", ["s"], ["r"], name="relu"),
            node("Conv", ["r", "gathered"], ["y"], name="gather"),
        ],
        {"x": [1, 3, 8, 8]},
        {"y": None},
        {"spread": random(3, 3, 1, 1) * spread, "gathered": gathered},
    )
    conversion = workshop.bie(workshop.onnx(model).artifact)
    assert any("collapsed: 2 of its 3 channels" in warning for warning in conversion.warnings)
    assert conversion.report["accuracy"]["outputs"][0]["collapsed_channels"] == [1, 2]


def test_a_model_without_anything_to_quantise_is_packaged_in_float(workshop: Workshop):
    model = a_model([node("Sin", ["x"], ["y"], name="sine")], {"x": [1, 4]}, {"y": None})
    conversion = workshop.bie(workshop.onnx(model).artifact)
    assert any("no operator that can be quantised" in warning for warning in conversion.warnings)
    assert conversion.report["quantisation"]["float_fallback_operators"] == {"Sin": 1}
    assert workshop.nef(conversion.artifact).report["self_test"]["passed"]


def test_initialisers_that_are_listed_as_inputs_become_constants(workshop: Workshop):
    model = a_model([node("Mul", ["x", "w"], ["y"])], {"x": [1, 4], "w": [4]}, {"y": None}, {"w": random(4)})
    report = workshop.onnx(model).report
    assert [spec["name"] for spec in report["source"]["inputs"]] == ["x"]
    assert [spec["name"] for spec in report["result"]["inputs"]] == ["x"]


def test_infinite_weights_are_warned_of(workshop: Workshop):
    mask = np.array([0, -np.inf, 0], np.float32)
    model = a_model([node("Add", ["x", "mask"], ["y"])], {"x": [1, 3]}, {"y": None}, {"mask": mask})
    assert "'mask' contain infinite values" in workshop.onnx(model).warnings[0]


def test_nodes_of_one_name_are_told_apart(workshop: Workshop):
    nodes = [node("Sin", ["x"], ["a"], name="same"), node("Cos", ["a"], ["y"], name="same")]
    result = onnx.load(workshop.onnx(a_model(nodes, {"x": [1, 3]}, {"y": None})).artifact)
    assert len({each.name for each in result.graph.node}) == 2


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_well_known_architectures_convert(workshop: Workshop, name: str):
    static, quantised, package = workshop.all(with_random_weights(LIGHT / f"light_{name}.onnx"))
    assert static.report["opset_conversion"] == {
        "source": 9,
        "target": 17,
        "method": "converted",
        "failed_attempts": [],
    }
    assert quantised.report["quantisation"]["quantize_linear_nodes"] > 40
    assert package.report["self_test"]["passed"]


def test_weights_in_the_older_fields_are_read(workshop: Workshop):
    model = a_model([node("Mul", ["x", "w"], ["y"])], {"x": [1, 4]}, {"y": None}, {"w": random(4)})
    values = numpy_helper.to_array(model.graph.initializer[0])
    model.graph.initializer[0].CopyFrom(helper.make_tensor("w", onnx.TensorProto.FLOAT, [4], values.tolist()))
    assert workshop.onnx(model).report["source"]["weight_bytes"] == 16
