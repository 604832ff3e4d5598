"""What is done to a client's model before any toolchain optimises it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from onnx import defs, helper

from converter.common.conversion import ConversionRefused
from converter.toolchain import models

if TYPE_CHECKING:
    import onnx

    from converter.toolchain.steps import Steps

_FIRST_IR_WITH_FREE_INITIALISERS = 4
_OPTIONAL = defs.OpSchema.FormalParameterOption.Optional
_NUMBERS = re.compile(r"bool|float(16|32|64)|u?int(8|16|32|64)")
"""Types that samples can be made of, as numpy names them."""


def check_weights(model: onnx.ModelProto, steps: Steps) -> None:
    """Refuses weights that are no numbers, and warns of infinite ones (a mask may mean them).

    Raises:
        ConversionRefused: `model_invalid`.
    """
    for name, values in models.float_weights(model):
        if np.isnan(values).any():
            raise ConversionRefused("model_invalid", f"the weights {name!r} contain NaN")
        if np.isinf(values).any():
            steps.warn(f"The weights {name!r} contain infinite values, which cannot be quantised.")


def tidy(model: onnx.ModelProto) -> None:
    """Brings what exporters write in different ways into one form; the model computes the same."""
    _drop_initialiser_inputs(model)
    model.graph.name = model.graph.name or "graph"
    for node in model.graph.node:
        node.domain = "" if node.domain in models.DEFAULT_DOMAIN else node.domain
    models.set_opset(model, models.opset(model))
    models.name_nodes(model)
    _name_outputs(model)


def _name_outputs(model: onnx.ModelProto) -> None:
    """Names required outputs that have no name because nothing reads them: the runtime crashes on those."""
    for node in model.graph.node:
        if "" not in node.output or not defs.has(node.op_type):
            continue
        formal = defs.get_schema(node.op_type).outputs
        for index, name in enumerate(node.output):
            if not name and formal[min(index, len(formal) - 1)].option != _OPTIONAL:
                node.output[index] = f"{node.name}_output_{index}"


def check_inputs(model: onnx.ModelProto, wanted: dict[str, tuple[int, ...]]) -> None:
    """Refuses inputs that are not numeric; gives those without a shape the one in `wanted`.

    Raises:
        ConversionRefused: `model_unsupported`, or `input_shape_required`: no shape, or `wanted` is of other inputs.
    """
    shapes = _by_input(model, wanted)
    for value in model.graph.input:
        tensor = value.type.tensor_type
        kind = models.dtype_name(tensor.elem_type)
        if not _NUMBERS.fullmatch(kind):
            raise ConversionRefused("model_unsupported", f"the input {value.name!r} is of the type {kind}")
        if tensor.HasField("shape"):
            continue
        if value.name not in shapes:
            raise _shape_required(f"the input {value.name!r} does not say its shape")
        tensor.CopyFrom(helper.make_tensor_type_proto(tensor.elem_type, shapes[value.name]).tensor_type)


def check_inference(model: onnx.ModelProto) -> None:
    """Refuses a model that would compute as in training.

    Raises:
        ConversionRefused: `model_unsupported`.
    """
    for node in model.graph.node:
        if any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute):
            raise ConversionRefused(
                "model_unsupported",
                f"{node.op_type} is in training mode",
                node=node.name,
                op=node.op_type,
                hint="Export the model for inference, as with model.eval() in PyTorch.",
            )


def _drop_initialiser_inputs(model: onnx.ModelProto) -> None:
    """Takes initialisers out of the graph's inputs, so that they count as constants."""
    initialisers = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in initialisers]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, _FIRST_IR_WITH_FREE_INITIALISERS)


def fix_shapes(model: onnx.ModelProto, wanted: dict[str, tuple[int, ...]]) -> None:
    """Makes every input static: as `wanted` says, else a dynamic batch (axis 0) becomes 1.

    The shapes of all other tensors are forgotten, they follow from the inputs'.

    Raises:
        ConversionRefused: `input_shape_required`: a dimension stays open, or `wanted` does not fit the inputs.
    """
    shapes = _by_input(model, wanted)
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        shape = shapes.get(value.name)
        if shape is not None and len(shape) != len(dims):
            raise _shape_required(f"the input {value.name!r} has {len(dims)} axes, input_shape gives {len(shape)}")
        for axis, dim in enumerate(dims):
            size = shape[axis] if shape is not None else _own_size(dim, axis)
            if size is None:
                name = f" ({dim.dim_param})" if dim.dim_param else ""
                raise _shape_required(f"axis {axis}{name} of the input {value.name!r} is dynamic")
            dim.Clear()
            dim.dim_value = size
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")


def _shape_required(message: str) -> ConversionRefused:
    return ConversionRefused("input_shape_required", message)


def _own_size(dim: onnx.TensorShapeProto.Dimension, axis: int) -> int | None:
    if dim.dim_value > 0:
        return int(dim.dim_value)
    return 1 if axis == 0 else None


def _by_input(model: onnx.ModelProto, wanted: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    names = [value.name for value in model.graph.input]
    if "" in wanted and len(names) != 1:
        raise _shape_required(f"input_shape names no input, and the model has {len(names)}: {', '.join(names)}")
    shapes = {name or names[0]: shape for name, shape in wanted.items()}
    if unknown := sorted(set(shapes) - set(names)):
        raise _shape_required(f"input_shape names {', '.join(unknown)}; the model's inputs are {', '.join(names)}")
    return shapes
