"""What is done to a client's model before any toolchain optimises it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converter.common.conversion import ConversionRefused
from converter.toolchain import models

if TYPE_CHECKING:
    import onnx

    from converter.toolchain.steps import Steps

_FIRST_IR_WITH_FREE_INITIALISERS = 4


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


def drop_initialiser_inputs(model: onnx.ModelProto) -> None:
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
        if not value.type.tensor_type.HasField("shape"):
            if shape is None:
                raise _shape_required(f"the input {value.name!r} does not say its shape")
            for _ in shape:
                dims.add()
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
