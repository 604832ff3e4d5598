"""ONNX models: loading, saving, checking, and what can be said of one in figures."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from msgspec import Struct
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

DEFAULT_DOMAIN = ("", "ai.onnx")
_FLOATING = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE})
_MULTIPLYING = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_MOST_VALUES = 1024
"""Of a tensor that shapes may follow from: sizes, axes, scales."""

Shape = tuple[int | str | None, ...]


class TensorSpec(Struct, frozen=True, kw_only=True):
    """An input or output: `dtype` as numpy names it, a dimension as a number, a name, or None where nothing is said."""

    name: str
    dtype: str
    shape: Shape

    @property
    def static(self) -> bool:
        """Whether every dimension is a number."""
        return all(isinstance(dim, int) for dim in self.shape)

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape of a static tensor; what is not known counts as 1."""
        return tuple(dim if isinstance(dim, int) else 1 for dim in self.shape)


def load(path: Path) -> onnx.ModelProto:
    """The model at `path`; tensors in other files are never followed."""
    return onnx.load(path, load_external_data=False)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Writes `model`; equal models give equal bytes."""
    path.write_bytes(model.SerializeToString(deterministic=True))


def check(model: onnx.ModelProto) -> None:
    """Raises what onnx raises where `model` is not valid, or its shapes contradict each other."""
    onnx.checker.check_model(model)
    onnx.shape_inference.infer_shapes(_without_weights(model), check_type=True, strict_mode=True)


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` itself, which now states the shape of every tensor that can be told, and of no other."""
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(
        _without_weights(model), check_type=True, strict_mode=True, data_prop=True
    )
    for known, found in (
        (model.graph.value_info, inferred.graph.value_info),
        (model.graph.output, inferred.graph.output),
    ):
        del known[:]
        known.extend(found)
    _shape_passed_through(model.graph)
    return model


def _shape_passed_through(graph: onnx.GraphProto) -> None:
    """States the shapes of outputs that no node makes: inputs and constants, which inference leaves out."""
    types = {
        tensor.name: helper.make_tensor_type_proto(tensor.data_type, tensor.dims) for tensor in graph.initializer
    } | {value.name: value.type for value in graph.input}
    for output in graph.output:
        if output.name in types:
            output.type.CopyFrom(types[output.name])


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """What shapes follow from. onnx copies a model to look at it; of the weights the types and dimensions will do."""
    graph = onnx.GraphProto(
        name=model.graph.name,
        node=model.graph.node,
        input=model.graph.input,
        output=model.graph.output,
        value_info=model.graph.value_info,
        initializer=(
            tensor if math.prod(tensor.dims) <= _MOST_VALUES else _dims_only(tensor)
            for tensor in model.graph.initializer
        ),
    )
    return onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=graph)


def _dims_only(tensor: onnx.TensorProto) -> onnx.TensorProto:
    return onnx.TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)


def opset(model: onnx.ModelProto) -> int:
    """The version of the standard operators that `model` uses."""
    return int(next(entry.version for entry in model.opset_import if entry.domain in DEFAULT_DOMAIN))


def set_opset(model: onnx.ModelProto, version: int) -> None:
    """Relabels `model`, and drops the domains that no node uses."""
    used = {node.domain for node in model.graph.node} - set(DEFAULT_DOMAIN)
    kept = [helper.make_opsetid("", version), *(entry for entry in model.opset_import if entry.domain in used)]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def inputs(model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """What has to be fed: the inputs without those that an initialiser feeds."""
    initialisers = {tensor.name for tensor in model.graph.initializer}
    return tuple(_spec(value) for value in model.graph.input if value.name not in initialisers)


def outputs(model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """What the model computes."""
    return tuple(_spec(value) for value in model.graph.output)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    return TensorSpec(name=value.name, dtype=dtype_name(tensor.elem_type), shape=_shape(tensor))


def _shape(tensor: onnx.TypeProto.Tensor) -> Shape:
    return tuple(dim.dim_value if dim.dim_value > 0 else dim.dim_param or None for dim in tensor.shape.dim)


def dtype_name(elem_type: int) -> str:
    """What numpy calls an ONNX element type; "string" for texts."""
    if elem_type == onnx.TensorProto.STRING:
        return "string"
    return str(helper.tensor_dtype_to_np_dtype(elem_type).name)


def is_floating(elem_type: int) -> bool:
    """Whether values of this ONNX element type can be quantised."""
    return elem_type in _FLOATING


def float_weights(model: onnx.ModelProto) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name and values of each floating-point constant, one at a time."""
    constants = [(tensor.name, tensor) for tensor in model.graph.initializer]
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants += [(node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value"]
    for name, tensor in constants:
        if is_floating(tensor.data_type):
            yield name, numpy_helper.to_array(tensor)


def name_nodes(model: onnx.ModelProto) -> None:
    """Gives every node a name of its own: reports and quantisation tell nodes apart by it."""
    taken: set[str] = {""}
    for index, node in enumerate(model.graph.node):
        name, copy = node.name or f"{node.op_type}_{index}", 1
        while name in taken:
            name, copy = f"{node.name or node.op_type}_{index}_{copy}", copy + 1
        taken.add(name)
        node.name = name


def summary(model: onnx.ModelProto) -> dict[str, Any]:
    """A report's view of `model`.

    `parameters` counts the elements of all initialisers, `weight_bytes` their bytes. `macs` counts multiply-accumulate
    operations of Conv, ConvTranspose, Gemm and MatMul for one run; none where the shapes do not tell.
    """
    elements = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    return {
        "ir_version": model.ir_version,
        "opset": opset(model),
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "nodes": len(model.graph.node),
        "operators": dict(sorted(operators(model.graph.node).items())),
        "parameters": sum(elements.values()),
        "weight_bytes": sum(
            elements[tensor.name] * np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
            for tensor in model.graph.initializer
        ),
        "macs": _total(macs_by_node(model).values()),
        "inputs": [spec_record(spec) for spec in inputs(model)],
        "outputs": [spec_record(spec) for spec in outputs(model)],
    }


def operators(nodes: Iterable[onnx.NodeProto]) -> Counter[str]:
    """How often each operator occurs."""
    return Counter(f"{node.domain}:{node.op_type}" if node.domain else node.op_type for node in nodes)


def spec_record(spec: TensorSpec) -> dict[str, Any]:
    """`spec` as reports and manifests write it."""
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}


def macs_by_node(model: onnx.ModelProto) -> dict[str, int | None]:
    """Multiply-accumulate operations for one run, by node, of the nodes that have any; none without their shapes."""
    graph = model.graph
    shapes: dict[str, Shape] = {
        value.name: _shape(value.type.tensor_type)
        for value in (*graph.input, *graph.output, *graph.value_info)
        if value.type.tensor_type.HasField("shape")
    }
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    # Only numbers multiply: the name of a symbolic dimension times a large number would be a very long text.
    known = {
        name: tuple(dim for dim in shape if isinstance(dim, int))
        for name, shape in shapes.items()
        if all(isinstance(dim, int) for dim in shape)
    }
    return {node.name: _macs(node, known) for node in graph.node if node.op_type in _MULTIPLYING}


def _macs(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int | None:
    left, right, result = (shapes.get(name) for name in (*(*node.input, "", "")[:2], *(*node.output, "")[:1]))
    if not left or not right or result is None:
        return None
    match node.op_type:
        case "Conv":
            return math.prod(result) * math.prod(right[1:])
        case "ConvTranspose":
            return math.prod(left) * math.prod(right[1:])
        case "Gemm":
            transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            return math.prod(result) * left[0 if transposed else -1]
    return math.prod(result) * left[-1]


def _total(macs: Collection[int | None]) -> int | None:
    return None if None in macs else sum(filter(None, macs))
