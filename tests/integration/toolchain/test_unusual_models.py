"""Models that are valid and unlike most others: each goes through, or is refused for what it has."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.common.conversion import ConversionRefused
from converter.contracts.failures import FAILURES

from .workshop import Workshop, a_model, random

node = helper.make_node
IMAGE = {"x": [1, 3, 8, 8]}
WEIGHTS = {"w": random(4, 3, 3, 3)}
CONV = node("Conv", ["x", "w"], ["y"], name="conv")


def retyped(model: onnx.ModelProto, elem_type: int) -> onnx.ModelProto:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = elem_type
    return model


def nameless_graph() -> onnx.ModelProto:
    model = a_model([CONV], IMAGE, {"y": None}, WEIGHTS)
    model.graph.name = ""
    return model


def domain_in_full() -> onnx.ModelProto:
    model = a_model([CONV], IMAGE, {"y": None}, WEIGHTS)
    model.opset_import[0].domain = model.graph.node[0].domain = "ai.onnx"
    return model


def names_of_all_kinds() -> onnx.ModelProto:
    names = "图像", 'a/b:0 "<b>\n', "é\u202e"
    nodes = [node("Conv", names[:2], [names[2]], name="☃ /\\'"), node("Relu", [names[2]], ["出力"])]
    return a_model(nodes, {names[0]: IMAGE["x"]}, {"出力": None}, {names[1]: WEIGHTS["w"]})


UNUSUAL: dict[str, Callable[[], onnx.ModelProto]] = {
    "a graph without a name": nameless_graph,
    "the domain in full": domain_in_full,
    "names of all kinds": names_of_all_kinds,
    "an output that is an input": lambda: a_model([CONV], IMAGE, {"y": None, "x": IMAGE["x"]}, WEIGHTS),
    "an output that is a constant": lambda: a_model([CONV], IMAGE, {"y": None, "w": [4, 3, 3, 3]}, WEIGHTS),
    "no nodes": lambda: a_model([], IMAGE, {"x": IMAGE["x"]}),
    "no inputs": lambda: a_model([node("Relu", ["w"], ["y"])], {}, {"y": [4, 3, 3, 3]}, WEIGHTS),
    "results that nobody names": lambda: a_model(
        [node("Split", ["x"], ["a", "", "y"], axis=1)], IMAGE, {"y": None}, opset=13
    ),
    "no values": lambda: a_model(
        [node("Slice", ["x", "at", "at"], ["y"])], IMAGE, {"y": None}, {"at": np.array([5], np.int64)}
    ),
    "scalars": lambda: a_model([node("Add", ["x", "x"], ["y"])], {"x": []}, {"y": []}),
    "bytes": lambda: retyped(a_model([node("Identity", ["x"], ["y"])], IMAGE, {"y": IMAGE["x"]}), TensorProto.UINT8),
    "one bias for all": lambda: a_model(
        [node("Gemm", ["x", "w", "b"], ["y"])],
        {"x": [1, 6]},
        {"y": None},
        {"w": random(6, 6), "b": np.array(0.5, np.float32)},
    ),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_model_goes_through(workshop: Workshop, name: str):
    *_, package = workshop.all(UNUSUAL[name]())
    assert package.report["self_test"]["passed"]


def with_opset(version: int) -> onnx.ModelProto:
    model = a_model([CONV], IMAGE, {"y": None}, WEIGHTS)
    model.opset_import[0].version = version
    return model


def without_shape() -> onnx.ModelProto:
    model = a_model([CONV], IMAGE, {"y": None}, WEIGHTS)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    return model


def in_training() -> onnx.ModelProto:
    nodes = [node("BatchNormalization", ["x", *"sbmv"], ["y", "mean", "variance"], name="norm", training_mode=1)]
    return a_model(nodes, IMAGE, {"y": None}, {name: np.ones(3, np.float32) for name in "sbmv"})


def a_constant_that_is_no_number() -> onnx.ModelProto:
    constant = node("Constant", [], ["k"], value=numpy_helper.from_array(np.array([np.nan], np.float32)))
    return a_model([constant, node("Add", ["x", "k"], ["y"])], IMAGE, {"y": None})


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        (with_opset(99), "opset_unsupported", "opset 99"),
        (without_shape(), "input_shape_required", "'x' does not say its shape"),
        (retyped(a_model([], IMAGE, {"x": None}), TensorProto.STRING), "model_unsupported", "of the type string"),
        (in_training(), "model_unsupported", "BatchNormalization is in training mode"),
        (a_constant_that_is_no_number(), "model_invalid", "'k' contain NaN"),
    ],
)
def test_what_cannot_be_converted_is_called_by_its_name(
    workshop: Workshop, model: onnx.ModelProto, code: str, words: str
):
    with pytest.raises(ConversionRefused) as refused:
        workshop.onnx(model)
    assert refused.value.code == code
    assert words in refused.value.message
    assert FAILURES[code].hint


def test_a_model_gives_nothing_twice(workshop: Workshop):
    model = a_model([CONV], IMAGE, {"y": None}, WEIGHTS)
    model.graph.output.append(model.graph.output[0])
    with pytest.raises(ConversionRefused, match="gives out 'y' twice"):
        workshop.onnx(model)


def test_a_shape_can_be_given_to_an_input_that_has_none(workshop: Workshop):
    made = workshop.onnx(without_shape(), x=(1, 3, 8, 8))
    assert made.report["result"]["outputs"][0]["shape"] == [1, 4, 6, 6]


def test_evidence_does_not_say_where_files_are_kept(workshop: Workshop):
    model = a_model([node("Elu", ["x"], ["y"], name="smooth")], {"x": [1, 3]}, {"y": None})
    with pytest.raises(ConversionRefused) as refused:
        workshop.onnx(retyped(model, TensorProto.DOUBLE))
    assert str(workshop.root) not in (refused.value.evidence or "")
    assert "float32" in (refused.value.hint or "")


@pytest.mark.parametrize("beta", [0.0, 0.5, -2.0])
def test_the_beta_of_a_gemm_is_kept(workshop: Workshop, beta: float):
    nodes = [node("Gemm", ["x", "w", "b"], ["y"], beta=beta), node("Gemm", ["x", "w", "b"], ["z"])]
    weights = {"w": random(16, 16), "b": random(16, seed=1)}
    model = a_model(nodes, {"x": [1, 16]}, {"y": None, "z": None}, weights)
    assert workshop.bie(workshop.onnx(model).artifact).report["accuracy"]["snr_db"] > 20


@pytest.mark.parametrize(("least", "most"), [(0.1, 0.3), (-0.3, -0.1), (-0.2, 0.3)])
def test_a_clip_clips_where_it_says(workshop: Workshop, least: float, most: float):
    bounds = {"least": np.array(least, np.float32), "most": np.array(most, np.float32)}
    nodes = [CONV, node("Clip", ["y", "least", "most"], ["z"], name="clip")]
    model = a_model(nodes, IMAGE, {"z": None}, WEIGHTS | bounds)
    assert workshop.bie(workshop.onnx(model).artifact).report["accuracy"]["snr_db"] > 25


def test_a_table_of_one_row_is_calibrated_with_its_index(workshop: Workshop):
    nodes = [node("Gather", ["table", "ids"], ["rows"], name="look_up"), node("MatMul", ["rows", "w"], ["y"])]
    static = workshop.onnx(a_model(nodes, {"ids": [1, 4]}, {"y": None}, {"table": random(1, 6), "w": random(6, 6)}))
    with pytest.raises(ConversionRefused) as refused:
        workshop.bie(static.artifact)
    assert (refused.value.code, refused.value.node) == ("calibration_mismatch", "look_up")
    written = io.BytesIO()
    np.save(written, np.zeros((1, 4), np.int64))
    reference = workshop.archive([("0.npy", written.getvalue())])
    assert workshop.bie(static.artifact, reference).report["calibration"]["used"] == 1


def test_a_mask_of_infinite_values_stays_in_float_and_is_told(workshop: Workshop):
    mask = np.where(np.tri(6) > 0, 0, -np.inf).astype(np.float32)
    nodes = [
        node("MatMul", ["x", "w"], ["scores"], name="score"),
        node("Add", ["scores", "mask"], ["masked"], name="hide"),
        node("Softmax", ["masked"], ["shares"], name="share"),
        node("MatMul", ["shares", "x"], ["y"], name="mix"),
    ]
    model = a_model(nodes, {"x": [1, 6, 6]}, {"y": None}, {"w": random(6, 6), "mask": mask})
    made = workshop.bie(workshop.onnx(model).artifact)
    assert made.report["verdict"] == "good"
    assert any("in 1 of the tensors" in warning and "'masked'" in warning for warning in made.warnings)


def test_an_output_without_a_number_is_poor(workshop: Workshop):
    nodes = [node("Sqrt", ["x"], ["root"]), node("Log", ["below"], ["y"])]
    weights = {"minus": np.array(-1, np.float32)}
    model = a_model(
        [nodes[0], node("Sub", ["minus", "root"], ["below"]), nodes[1]], {"x": [1, 4]}, {"y": None}, weights
    )
    made = workshop.bie(workshop.onnx(model).artifact)
    assert made.report["verdict"] == "poor"
    assert any("not finite" in warning and "'y'" in warning for warning in made.warnings)


def test_an_output_whose_shape_depends_on_the_data_is_told(workshop: Workshop):
    nodes = [
        CONV,
        node("NonZero", ["y"], ["places"], name="find"),
        node("Transpose", ["places"], ["rows"], perm=[1, 0], name="turn"),
        node("GatherND", ["y", "rows"], ["found"], name="pick"),
    ]
    made = workshop.bie(workshop.onnx(a_model(nodes, IMAGE, {"found": ["n"]}, WEIGHTS)).artifact)
    assert any("'found' has another shape" in warning for warning in made.warnings)
