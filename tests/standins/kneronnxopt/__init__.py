"""A stand-in for the vendor's optimiser: checks how it is called, and gives the model back."""

from __future__ import annotations

import os

import onnx
from failing import fail_if_asked

_SWITCHES = {
    "duplicate_shared_weights": 1,
    "skip_check": False,
    "convert_f16": True,
    "skip_fuse_qkv": False,
    "clear_descriptions": False,
    "opt_matmul": False,
    "clear_shapes": False,
    "replace_avgpool_with_conv": False,
    "replace_dilated_conv": False,
    "defuse_gaps": False,
}


def optimize(model, overwrite_input_shapes=None, skipped_optimizers=None, **switches):
    """The model, if the call is right."""
    fail_if_asked("optimize")
    if not isinstance(model, onnx.ModelProto):
        raise TypeError(f"model must be a ModelProto, not {type(model)}")
    if unknown := set(switches) - set(_SWITCHES):
        raise TypeError(f"optimize() got an unexpected keyword argument {unknown}")
    for shape in overwrite_input_shapes or ():
        name, _, dims = shape.rpartition(":")
        if not name or not all(dim.isdigit() for dim in dims.split(",")):
            raise ValueError(f"not name:1,3,224,224: {shape!r}")
    del skipped_optimizers
    match os.environ.get("STANDIN_FAILURE"):
        case "own_operator":
            model.graph.node[-1].op_type = "KneronSoftmax"
        case "other_inputs":
            model.graph.input[0].name = model.graph.node[0].input[0] = "renamed"
    print("optimising, says the stand-in")
    return model
