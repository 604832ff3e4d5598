"""Bit widths, the ladder that climbs them, and half precision."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.common.conversion import ConversionRefused
from converter.toolchain import container, loader

from .conftest import Digits
from .workshop import Workshop, a_detector, a_model, random

CLIMB = {"ladder": "auto"}
UINT16, INT16 = TensorProto.UINT16, TensorProto.INT16


def stored_types(model: onnx.ModelProto) -> set[int]:
    """The integer types that the model quantises to."""
    zero_points = {node.input[2] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return {tensor.data_type for tensor in model.graph.initializer if tensor.name in zero_points}


def test_a_ladder_stops_at_the_first_step_that_is_good_enough(workshop: Workshop, digits: Digits):
    report = workshop.bie(digits.onnx.artifact, digits.images, **CLIMB).report
    assert [point["step"] for point in report["ladder"]["curve"]] == ["int8"]
    assert report["quantisation"]["min_snr_db"] == 20
    assert report["ladder"]["why"] == "the narrowest step with at least 20 dB"
    assert report["timings"]["steps_seconds"].keys() == {"int8"}


def test_a_ladder_climbs_until_the_figure_is_reached(workshop: Workshop, digits: Digits):
    conversion = workshop.bie(digits.onnx.artifact, digits.images, min_snr_db=35, **CLIMB)
    curve = conversion.report["ladder"]["curve"]
    assert [point["step"] for point in curve] == ["int8", "mixed", "int16"]
    assert max(curve[0]["snr_db"], curve[1]["snr_db"]) < 35 <= curve[2]["snr_db"]
    assert curve[0]["size_bytes"] < curve[1]["size_bytes"] < curve[2]["size_bytes"]
    assert conversion.report["ladder"]["chosen"] == conversion.report["quantisation"]["step"] == "int16"
    package = workshop.nef(conversion.artifact)
    assert package.report["self_test"]["passed"]
    quantised = onnx.load_from_string(container.read(conversion.artifact, conversion.media_type).member(loader.MODEL))
    assert {UINT16, INT16} <= stored_types(quantised)


def test_a_ladder_that_never_gets_there_names_its_best_step(workshop: Workshop, digits: Digits):
    with pytest.raises(ConversionRefused) as refused:
        workshop.bie(digits.onnx.artifact, digits.images, min_snr_db=119, **CLIMB)
    assert refused.value.code == "accuracy_below_minimum"
    assert "with int16, the best step" in refused.value.message
    assert [point.split(":")[0] for point in (refused.value.evidence or "").split("; ")] == ["int8", "mixed", "int16"]


def test_a_ladder_begins_where_it_is_told_to(workshop: Workshop, digits: Digits):
    modes = {"datapath_bitwidth_mode": "mix light", "weight_bitwidth_mode": "mix light"}
    report = workshop.bie(digits.onnx.artifact, digits.images, min_snr_db=35, **modes, **CLIMB).report
    assert [point["step"] for point in report["ladder"]["curve"]] == ["mixed", "int16"]


@pytest.mark.parametrize(
    ("datapath", "weight", "types"),
    [
        ("int16", "int8", {TensorProto.UINT16, TensorProto.INT8, TensorProto.INT32}),
        ("int8", "int16", {TensorProto.UINT8, TensorProto.INT16, TensorProto.INT32}),
        ("int16", "int16", {TensorProto.UINT16, TensorProto.INT16, TensorProto.INT32}),
        ("int16", "mixbw", {TensorProto.UINT16, TensorProto.INT8, TensorProto.INT16, TensorProto.INT32}),
    ],
)
def test_bit_width_modes_are_obeyed(workshop: Workshop, digits: Digits, datapath: str, weight: str, types: set[int]):
    conversion = workshop.bie(
        digits.onnx.artifact, digits.images, datapath_bitwidth_mode=datapath, weight_bitwidth_mode=weight
    )
    assert conversion.report["quantisation"]["ignored_keywords"] == []
    quantised = onnx.load_from_string(container.read(conversion.artifact, conversion.media_type).member(loader.MODEL))
    # Biases have no zero point of their own.
    assert stored_types(quantised) | {TensorProto.INT32} == types


@pytest.mark.parametrize(("mode", "share"), [("mix light", 0.25), ("mix balance", 0.5), ("mixbw", 0.2)])
def test_a_mixed_mode_lifts_a_bounded_share(workshop: Workshop, mode: str, share: float):
    static = workshop.onnx(a_detector()).artifact
    report = workshop.bie(static, datapath_bitwidth_mode=mode, weight_bitwidth_mode=mode).report
    lifted = report["quantisation"]["lifted_to_16_bits"]["activations"]
    assert report["quantisation"]["wide_share"] == share
    assert 1 <= len(lifted) <= max(1, round(share * len(report["accuracy"]["layers"])))


def test_the_models_own_inputs_and_outputs_can_be_wide(workshop: Workshop, digits: Digits):
    plain = workshop.bie(digits.onnx.artifact, digits.images).report["accuracy"]["snr_db"]
    report = workshop.bie(
        digits.onnx.artifact, digits.images, model_in_bitwidth_mode="int16", model_out_bitwidth_mode="int16"
    ).report
    assert report["quantisation"]["model_outputs"] == "uint16"
    assert report["accuracy"]["snr_db"] > plain


def test_wide_results_repeat_to_the_byte(workshop: Workshop, digits: Digits):
    modes = {"datapath_bitwidth_mode": "mixbw", "weight_bitwidth_mode": "mixbw", "flops_ratio": 0.4}
    first, second = (workshop.bie(digits.onnx.artifact, digits.images, **modes) for _ in range(2))
    assert first.artifact.read_bytes() == second.artifact.read_bytes()


def test_half_precision_becomes_float32_before_it_is_quantised(workshop: Workshop):
    weights = {"w": random(4, 3, 3, 3)}
    model = a_model([helper.make_node("Conv", ["x", "w"], ["y"], name="c")], {"x": [1, 3, 8, 8]}, {"y": None}, weights)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights["w"].astype(np.float16), "w"))
    static, quantised, _ = workshop.all(model)
    assert any("half precision" in warning for warning in static.warnings)
    assert static.report["source"]["inputs"][0]["dtype"] == "float16"
    assert static.report["result"]["inputs"][0]["dtype"] == "float32"
    assert quantised.report["accuracy"]["snr_db"] > 20
