"""What the vendor's toolchain is known not to take, found before it is started (its manual's conditions on models)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from converter.common.conversion import ConversionRefused
from converter.common.skim.graph_walk import QUANTISED
from converter.toolchain import models
from converter.toolchain.reporting import named
from converter.toolchain.steps import Steps

OPSETS = range(8, 19)
MOST_IR_VERSION = 9
MOST_RANK = 4
_NEWEST_TYPE_OF_IR_9 = TensorProto.FLOAT8E5M2FNUZ


def check_source(model: onnx.ModelProto) -> None:
    """Refuses what no change of ours makes convertible.

    Raises:
        ConversionRefused: `opset_unsupported`, `model_unsupported` (quantised already), or `model_invalid`.
    """
    opset = models.opset(model)
    if opset not in OPSETS:
        raise ConversionRefused(
            "opset_unsupported", f"the model uses opset {opset}, the toolchain takes {OPSETS[0]} to {OPSETS[-1]}"
        )
    for node in model.graph.node:
        if node.op_type in QUANTISED:
            raise ConversionRefused(
                "model_unsupported",
                f"the model is quantised already: it has {node.op_type}",
                node=node.name or None,
                op=node.op_type,
                hint="Send the float model; the toolchain quantises it.",
            )
    for name, values in models.float_weights(model):
        if not np.isfinite(values).all():
            raise ConversionRefused("model_invalid", f"the weights {name!r} contain NaN or infinite values")


def lower_ir_version(model: onnx.ModelProto) -> bool:
    """Relabels a model of a newer IR version, unless it uses what is new there; whether it was done.

    Versions 10 and later add element types, overloaded functions and metadata. Metadata is dropped.

    Raises:
        ConversionRefused: `ir_version_unsupported`.
    """
    if model.ir_version <= MOST_IR_VERSION:
        return False
    if newer := next(_newer(model), None):
        raise ConversionRefused(
            "ir_version_unsupported",
            f"the model has IR version {model.ir_version} and uses what version {MOST_IR_VERSION} has not: {newer}",
        )
    holders: Iterable[onnx.ModelProto | onnx.GraphProto | onnx.NodeProto | onnx.TensorProto | onnx.ValueInfoProto] = (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.initializer,
        *_values(model),
    )
    for holder in holders:
        del holder.metadata_props[:]
    model.ir_version = MOST_IR_VERSION
    return True


def _newer(model: onnx.ModelProto) -> Iterator[str]:
    if model.functions:
        yield "functions"
    if model.configuration:
        yield "device configurations"
    types = [(value.name, value.type.tensor_type.elem_type) for value in _values(model)]
    types += [(tensor.name, tensor.data_type) for tensor in model.graph.initializer]
    for node in model.graph.node:
        if node.overload:
            yield f"the overload {node.overload!r}"
        types += [(node.name, attribute.t.data_type) for attribute in node.attribute if attribute.HasField("t")]
        types += [(node.name, attribute.i) for attribute in node.attribute if attribute.name in {"to", "dtype"}]
    yield from (f"the element type of {name!r}" for name, kind in types if kind > _NEWEST_TYPE_OF_IR_9)


def _values(model: onnx.ModelProto) -> tuple[onnx.ValueInfoProto, ...]:
    return (*model.graph.input, *model.graph.output, *model.graph.value_info)


def check_static(model: onnx.ModelProto) -> None:
    """Refuses inputs and outputs that the toolchain does not take.

    Raises:
        ConversionRefused: `input_shape_required` (a dimension is open, or the batch is not 1) or `model_unsupported`
            (an input or output of more than four axes).
    """
    for spec in models.inputs(model):
        if not spec.static:
            raise ConversionRefused("input_shape_required", f"the input {spec.name!r} is {list(spec.shape)}")
        if spec.dims and spec.dims[0] != 1:
            raise ConversionRefused(
                "input_shape_required",
                f"the batch (axis 0) of the input {spec.name!r} is {spec.dims[0]}, the toolchain takes 1",
            )
    for spec in (*models.inputs(model), *models.outputs(model)):
        if len(spec.shape) > MOST_RANK:
            raise ConversionRefused(
                "model_unsupported", f"{spec.name!r} has {len(spec.shape)} axes, the toolchain takes up to {MOST_RANK}"
            )


def warn_of_width(model: onnx.ModelProto, keywords: Mapping[str, Any], steps: Steps) -> None:
    """Names the nodes that the vendor advises against computing with 8 bits."""
    narrow = [node.name for node in model.graph.node if node.op_type == "ReduceL2"]
    if narrow and keywords.get("datapath_bitwidth_mode", "int8") == "int8":
        steps.warn(
            'ReduceL2 wants datapath_bitwidth_mode "mix light" or "int16", which the vendor advises for it: '
            f"{named(narrow)}."
        )


def warn_of_rank(model: onnx.ModelProto, steps: Steps) -> None:
    """Names the nodes whose results have more axes than most of the toolchain's operators take."""
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in model.graph.value_info}
    wide = [node.name for node in model.graph.node if any(ranks.get(name, 0) > MOST_RANK for name in node.output)]
    if wide:
        steps.warn(
            f"{len(wide)} nodes give tensors of more than {MOST_RANK} axes, which few operators take: {named(wide)}."
        )
