from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from converter.stage_bie.lifting import Weights, choose
from converter.stage_bie.schemes import resolve

FLOAT = TensorProto.FLOAT


def layer(tensor: str, snr_db: float) -> dict[str, object]:
    return {"tensor": tensor, "snr_db": snr_db, "exact": False}


def test_the_tensor_that_adds_the_noise_is_lifted_and_not_those_that_inherit_it():
    def matrix(name: str) -> object:
        return helper.make_tensor(name, FLOAT, [2, 2], [1.0, 0, 0, 1])

    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "w1"], ["b"], name="second"),
        helper.make_node("MatMul", ["b", "w2"], ["c"], name="third"),
    ]
    values = [helper.make_tensor_value_info(name, FLOAT, [1, 2]) for name in "xabc"]
    graph = helper.make_graph(
        nodes, "g", values[:1], values[3:], [matrix("w0"), matrix("w1"), matrix("w2")], value_info=values[1:3]
    )
    layers = [layer("c", 9.9), layer("b", 10), layer("a", 40)]
    lifted = choose(helper.make_model(graph), layers, share=0.34)
    assert lifted.activations == {"b"}
    assert lifted.weights == {Weights("w1", 1)}


def test_a_chip_without_16_bits_stays_at_8_and_says_so():
    scheme = resolve({"ladder": "auto", "datapath_bitwidth_mode": "mix light"}, "520")
    assert [step.name for step in scheme.steps] == ["int8"]
    assert "no 16-bit operation" in scheme.warnings[0]


def test_a_ladder_has_every_step_from_the_one_asked_for():
    assert [step.name for step in resolve({"ladder": "auto"}).steps] == ["int8", "mixed", "int16"]
    assert [step.name for step in resolve({"ladder": "auto", "weight_bitwidth_mode": "int16"}).steps] == [
        "activations int8, weights int16"
    ]


@pytest.mark.parametrize(("keywords", "least"), [({}, None), ({"ladder": "auto"}, 20), ({"min_snr_db": 3}, 3)])
def test_a_ladder_asks_for_20_db_unless_told_otherwise(keywords: dict[str, object], least: float | None):
    assert resolve(keywords).min_snr_db == least
