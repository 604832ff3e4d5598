from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.common.conversion import ConversionRefused
from converter.kneron import limits
from converter.toolchain import models
from converter.toolchain.steps import Steps

node = helper.make_node


def a_model(
    *nodes: onnx.NodeProto,
    shape: tuple[int, ...] = (1, 3, 4, 4),
    opset: int = 13,
    ir_version: int = 8,
    weights: np.ndarray | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes) or [node("Relu", ["x"], ["y"], name="act")],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [] if weights is None else [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def code(model: onnx.ModelProto) -> str:
    with pytest.raises(ConversionRefused) as refusal:
        check(model)
    return refusal.value.code


def check(model: onnx.ModelProto) -> Steps:
    steps = Steps(lambda *_: None)
    limits.check_source(model)
    limits.lower_ir_version(model)
    limits.check_static(inferred := models.infer_shapes(model))
    limits.warn_of_rank(inferred, steps)
    return steps


@pytest.mark.parametrize("opset", [8, 13, 18])
def test_opsets_that_the_toolchain_takes(opset: int):
    check(a_model(opset=opset))


@pytest.mark.parametrize("opset", [7, 19])
def test_other_opsets_are_refused(opset: int):
    assert code(a_model(opset=opset)) == "opset_unsupported"


def test_a_newer_ir_version_is_relabelled_where_nothing_of_it_is_used():
    model = a_model(ir_version=11)
    model.graph.node[0].metadata_props.add(key="namespace", value="encoder")
    check(model)
    assert model.ir_version == 9
    assert not model.graph.node[0].metadata_props
    models.check(models.infer_shapes(model))


def test_a_newer_ir_version_is_refused_where_it_is_needed():
    model = a_model(node("Cast", ["x"], ["y"], name="narrow", to=TensorProto.INT4), ir_version=10)
    assert code(model) == "ir_version_unsupported"


def test_a_model_that_is_quantised_already_is_refused_with_its_node():
    model = a_model(node("QuantizeLinear", ["x", "w"], ["y"], name="q"), weights=np.ones((), np.float32))
    assert code(model) == "model_unsupported"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_finite_numbers_are_refused(value: float):
    model = a_model(node("Mul", ["x", "w"], ["y"]), weights=np.array([value], np.float32))
    assert code(model) == "model_invalid"


def test_a_batch_other_than_one_is_refused():
    assert code(a_model(shape=(2, 3, 4, 4))) == "input_shape_required"


def test_an_input_of_five_axes_is_refused():
    assert code(a_model(shape=(1, 3, 4, 4, 4))) == "model_unsupported"


def test_what_wants_more_than_8_bits_is_warned_of_by_node():
    norm = node("ReduceL2", ["x"], ["y"], name="norm", axes=[1])
    warned = Steps(lambda *_: None)
    for mode in ("mix light", "int16"):
        limits.warn_of_width(a_model(norm), {"datapath_bitwidth_mode": mode}, warned)
    assert not warned.warnings
    limits.warn_of_width(a_model(norm), {}, warned)
    assert "norm" in warned.warnings[0]


def test_five_axes_inside_are_warned_of_by_node():
    wide = node("Reshape", ["x", "five"], ["r"], name="split")
    narrow = node("Reshape", ["r", "four"], ["y"], name="join")
    model = a_model(wide, narrow)
    for name, shape in (("five", [1, 3, 2, 2, 4]), ("four", [1, 3, 4, 4])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), name))
    assert "split" in check(model).warnings[0]
