"""Half precision made float32, which every later step computes and quantises in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from converter.toolchain.steps import Steps

_DTYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_datatype"})
"""Attributes whose number is a TensorProto.DataType (Cast; EyeLike and the Random operators; DFT's windows)."""


def widen(model: onnx.ModelProto, steps: Steps) -> bool:
    """Makes every float16 tensor of `model` float32, exactly, and warns of it; whether there was one.

    Casts between the two become casts to the same type, which the optimiser takes out.
    """
    tensors = [tensor for tensor in _tensors(model.graph) if tensor.data_type == TensorProto.FLOAT16]
    values = [value.type.tensor_type for value in _values(model.graph)]
    values = [value for value in values if value.elem_type == TensorProto.FLOAT16]
    for tensor in tensors:
        wide = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
        tensor.CopyFrom(wide)
    for value in values:
        value.elem_type = TensorProto.FLOAT
    numbers = [
        attribute
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.name in _DTYPE_ATTRIBUTES and attribute.i == TensorProto.FLOAT16
    ]
    for attribute in numbers:
        attribute.i = TensorProto.FLOAT
    if not (tensors or values or numbers):
        return False
    steps.warn("The model is in half precision; it was converted to float32, its inputs and outputs too.")
    return True


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


def _values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    yield from graph.input
    yield from graph.output
    yield from graph.value_info
