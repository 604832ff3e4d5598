"""Models with random weights, for what depends on their size or shape alone: memory, time, limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"
"""Models of onnx's own tests: known architectures, their weights constants of one value."""
MEGABYTE = 1_000_000
_CHANNELS, _CLASSES, _SIDE = 512, 1000, 32
_FLOAT_BYTES = 4


def convolutions(megabytes: int) -> onnx.ModelProto:
    """A classifier of images whose weights take `megabytes` (10^6 bytes) or a little more: 3x3 on maps of 8 by 8."""
    random = np.random.default_rng(megabytes)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weighted(name: str, *shape: int) -> str:
        weights.append(numpy_helper.from_array(_weights(random, shape), name))
        return name

    def convolved(index: int, source: str, channels: int, stride: int) -> str:
        weight = weighted(f"w{index}", _CHANNELS, channels, 3, 3)
        strides = [stride, stride]
        nodes.append(
            helper.make_node(
                "Conv", [source, weight], [f"c{index}"], name=f"conv{index}", pads=[1, 1, 1, 1], strides=strides
            )
        )
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"], name=f"relu{index}"))
        return f"r{index}"

    last = convolved(0, "image", 3, 4)
    per_layer = _CHANNELS * _CHANNELS * 9 * _FLOAT_BYTES
    left = megabytes * MEGABYTE - (_CHANNELS * 27 + _CHANNELS * _CLASSES) * _FLOAT_BYTES
    for index in range(math.ceil(left / per_layer)):
        last = convolved(index + 1, last, _CHANNELS, 1)
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"], name="pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"))
    dense = weighted("dense", _CLASSES, _CHANNELS)
    nodes.append(helper.make_node("Gemm", ["flat", dense], ["scores"], name="classify", transB=1))
    graph = helper.make_graph(
        nodes,
        f"generated of {megabytes} MB",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, _SIDE, _SIDE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, _CLASSES])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _weights(random: np.random.Generator, shape: Sequence[int]) -> NDArray[np.float32]:
    """Such that they keep the spread of what passes through them."""
    spread = np.sqrt(2 / np.prod(shape[1:]))
    values: NDArray[np.float32] = (random.standard_normal(tuple(shape), np.float32) * spread).astype(np.float32)
    return values


def with_random_weights(path: Path) -> onnx.ModelProto:
    """The model at `path`, one of `LIGHT`, with random weights."""
    model = onnx.load(path)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    kept = []
    for index, node in enumerate(model.graph.node):
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = shapes[node.input[0]].tolist()
        values = _weights(np.random.default_rng(index), shape) if len(shape) > 1 else np.full(shape, 0.01, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model
