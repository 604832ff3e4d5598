"""Writes the quantised model: standard ONNX with QuantizeLinear and DequantizeLinear pairs (QDQ)."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

from converter.stage_bie import calibration
from converter.toolchain import models

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from converter.stage_bie.lifting import Lifted
    from converter.stage_bie.schemes import Step

_QUANTISE, _DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
_IR_OF_OPSET_21 = 10
_FLOAT_BIAS = {"QuantizeBias": False, "QDQDisableWeightAdjustForInt32Bias": True}
_PREPROCESSED = ("onnx.quant.pre_process", "onnxruntime.quant")


def quantise(model: onnx.ModelProto, scratch: Path, ranges: TensorsData, step: Step, lifted: Lifted) -> onnx.ModelProto:
    """`model` quantised as `step` says, weights channel by channel; equal arguments give equal models.

    With 16 bits anywhere, the result has opset 21: the first whose QuantizeLinear knows them.
    """
    source, target, cache = scratch / "float.onnx", scratch / "quantised.onnx", scratch / "ranges.json"
    # Tells the quantiser that the onnx stage has done what it would advise in its log.
    key, value = _PREPROCESSED
    marked = type(model)()
    marked.CopyFrom(model)
    marked.metadata_props.add(key=key, value=value)
    _fold_beta(marked)
    models.save(marked, source)
    del marked  # the quantiser is about to hold the weights a few times over
    save_tensors_data(ranges, cache, smooth_quant=False)
    kept, overrides = kept_in_float(model, ranges), _overrides(model, ranges, step, lifted)
    try:
        _write(source, target, cache, step, kept, {"TensorQuantOverrides": overrides})
    except (ValueError, IndexError):
        # onnxruntime 1.32 stumbles over a bias that has not one axis (LayerNormalization has them): all stay in float.
        _write(source, target, cache, step, kept, {"TensorQuantOverrides": overrides, **_FLOAT_BIAS})
    quantised = models.load(target)
    models.set_opset(quantised, models.opset(quantised))
    quantised = models.infer_shapes(quantised)
    quantised.ir_version = model.ir_version if models.opset(quantised) == models.opset(model) else _IR_OF_OPSET_21
    quantised.producer_name, quantised.producer_version = model.producer_name, model.producer_version
    del quantised.metadata_props[:]
    models.check(quantised)
    return quantised


def _fold_beta(model: onnx.ModelProto) -> None:
    """Multiplies constant biases of Gemm by their node's beta.

    onnxruntime 1.32 sets the beta of a Gemm that it quantises to 1 and leaves the bias as it is.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        beta = next((attribute for attribute in node.attribute if attribute.name == "beta"), None)
        if node.op_type == "Gemm" and beta and beta.f != 1 and len(node.input) > 2 and node.input[2] in constants:  # noqa: PLR2004 - the bias
            bias = numpy_helper.to_array(constants[node.input[2]])
            node.input[2] += f"_times_beta_of_{node.name}"  # others may read the bias as it is
            model.graph.initializer.append(numpy_helper.from_array(bias * bias.dtype.type(beta.f), node.input[2]))
            beta.f = 1.0


def kept_in_float(model: onnx.ModelProto, ranges: TensorsData) -> list[str]:
    """The names of the nodes that must not be quantised.

    These are the nodes that read or give a tensor without a range, or read a weight that is not finite. Because of
    onnxruntime 1.32 also those that read an input of the model which is an output, too, and each Clip whose bounds
    leave zero out: the quantiser removes a Clip and relies on the tensor's range, which always includes zero.
    """
    constants = dict(models.float_weights(model))
    unbounded = calibration.quantisable(model) - set(ranges.keys())
    unbounded |= {name for name, values in constants.items() if not np.isfinite(values).all()}
    unbounded |= {spec.name for spec in models.inputs(model)} & {spec.name for spec in models.outputs(model)}
    return [
        node.name
        for node in model.graph.node
        if not unbounded.isdisjoint((*node.input, *node.output)) or _clips_zero(node, constants)
    ]


def _clips_zero(node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]]) -> bool:
    if node.op_type != "Clip":
        return False
    least, most = (*node.input, "", "")[1:3]
    return bool(np.any(constants.get(least, 0) > 0) or np.any(constants.get(most, 0) < 0))


def _write(source: Path, target: Path, cache: Path, step: Step, kept: list[str], options: dict[str, Any]) -> None:
    with _opset_advice_silenced():
        quantize_static(
            source,
            target,
            None,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt16 if step.activations == "int16" else QuantType.QUInt8,
            weight_type=QuantType.QInt16 if step.weights == "int16" else QuantType.QInt8,
            calibration_cache_path=cache,
            nodes_to_exclude=kept,
            extra_options={"ActivationSymmetric": False, "WeightSymmetric": True, **options},
        )


@contextmanager
def _opset_advice_silenced() -> Iterator[None]:
    """The quantiser warns of every change of the opset, through the root logger; the report tells it."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _overrides(
    model: onnx.ModelProto, ranges: TensorsData, step: Step, lifted: Lifted
) -> dict[str, list[dict[str, Any]]]:
    """What holds of single tensors: 16 bits for the `lifted` ones, and the ranges of Softmax.

    ONNX Runtime takes 0..1 for granted for the outputs of Softmax; with 1000 classes every answer below 1/510 would
    become 0.
    """
    overrides: dict[str, dict[str, Any]] = {}
    wide = set(lifted.activations) if step.activations == "mixed" else set()
    wide |= {spec.name for spec in models.inputs(model)} if step.wide_inputs else set()
    wide |= {spec.name for spec in models.outputs(model)} if step.wide_outputs else set()
    for name in sorted(wide.intersection(ranges.keys())):
        overrides[name] = {"quant_type": QuantType.QUInt16}
    if step.weights == "mixed":
        for name, axis in sorted(lifted.weights):
            overrides[name] = {"quant_type": QuantType.QInt16, "symmetric": True, "axis": axis}
    for node in model.graph.node:
        if node.op_type == "Softmax" and node.output[0] in ranges:
            low, high = ranges[node.output[0]].range_value
            bounds = {"rmin": np.ravel(low)[0], "rmax": np.ravel(high)[0]}
            overrides[node.output[0]] = overrides.get(node.output[0], {}) | bounds
    return {name: [override] for name, override in overrides.items()}


def coverage(quantised: onnx.ModelProto) -> dict[str, Any]:
    """How much of the model computes with integers, and which operators stay in floating point.

    A node counts as quantised if one of its inputs comes out of a DequantizeLinear, or all that it gives goes into a
    QuantizeLinear (an activation that is fused with the node before).
    """
    graph = quantised.graph
    dequantised = {name for node in graph.node if node.op_type == _DEQUANTISE for name in node.output}
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    floating = {
        value.name
        for value in (*graph.value_info, *graph.output)
        if models.is_floating(value.type.tensor_type.elem_type)
    }
    working = [node for node in graph.node if node.op_type not in {_QUANTISE, _DEQUANTISE}]
    in_float = [
        node
        for node in working
        if floating.intersection(node.output)
        and dequantised.isdisjoint(node.input)
        and any(readers.get(name) != {_QUANTISE} for name in node.output)
    ]
    return {
        "nodes": len(working),
        "dequantize_linear_nodes": len(graph.node) - len(working) - _count(graph, _QUANTISE),
        "quantize_linear_nodes": _count(graph, _QUANTISE),
        "float_fallback_operators": dict(sorted(Counter(node.op_type for node in in_float).items())),
        "float_fallback_nodes": sorted(node.name for node in in_float),
    }


def _count(graph: onnx.GraphProto, op: str) -> int:
    return sum(node.op_type == op for node in graph.node)
