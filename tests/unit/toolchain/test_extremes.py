from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from converter.stage_bie.extremes import Extremes


def test_bounds_are_those_of_every_run_of_every_tensor(tmp_path: Path):
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("x", "r", "y")}
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Neg", ["r"], ["y"])]
    graph = helper.make_graph(nodes, "g", [values["x"]], [values["y"]], value_info=[values["r"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    extremes = Extremes(model, tmp_path, values)
    for row in ([[-4.0, 1.0, 2.0]], [[0.0, 9.0, -1.0]]):
        extremes.add({"x": np.array(row, np.float32)})
    found = {name: (low.tolist(), high.tolist()) for name, (low, high) in extremes.bounds().items()}
    assert found == {"x": ([-4.0], [9.0]), "r": ([0.0], [9.0]), "y": ([-9.0], [0.0])}


def test_there_are_no_bounds_without_a_run(tmp_path: Path):
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [out])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises(ValueError, match="without a run"):
        Extremes(model, tmp_path, ["x"]).bounds()
