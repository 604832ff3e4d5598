"""Writes the quantised model: standard ONNX with QuantizeLinear and DequantizeLinear pairs (QDQ)."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

from converter.toolchain import models

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx

    from converter.stage_bie.lifting import Lifted
    from converter.stage_bie.schemes import Scheme, Step

_QUANTISE, _DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
_IR_OF_OPSET_21 = 10
_FLOAT_BIAS = {"QuantizeBias": False, "QDQDisableWeightAdjustForInt32Bias": True}
_PREPROCESSED = ("onnx.quant.pre_process", "onnxruntime.quant")


def quantise(
    model: onnx.ModelProto, scratch: Path, scheme: Scheme, ranges: TensorsData, step: Step, lifted: Lifted
) -> onnx.ModelProto:
    """`model` quantised as `step` says, weights channel by channel; equal arguments give equal models.

    With 16 bits anywhere, the result has opset 21: the first whose QuantizeLinear knows them.
    """
    source, target, cache = scratch / "float.onnx", scratch / "quantised.onnx", scratch / "ranges.json"
    # Tells the quantiser that the onnx stage has done what it would advise in its log.
    key, value = _PREPROCESSED
    marked = type(model)()
    marked.CopyFrom(model)
    marked.metadata_props.add(key=key, value=value)
    models.save(marked, source)
    del marked  # the quantiser is about to hold the weights a few times over
    save_tensors_data(ranges, cache, smooth_quant=False)
    overrides = _overrides(model, ranges, step, lifted)
    try:
        _write(source, target, cache, scheme, step, {"TensorQuantOverrides": overrides})
    except ValueError:
        # onnxruntime 1.32 stumbles over a bias of more than one axis (LayerNormalization has them): all stay in float.
        _write(source, target, cache, scheme, step, {"TensorQuantOverrides": overrides, **_FLOAT_BIAS})
    quantised = models.load(target)
    models.set_opset(quantised, models.opset(quantised))
    quantised = models.infer_shapes(quantised)
    quantised.ir_version = model.ir_version if models.opset(quantised) == models.opset(model) else _IR_OF_OPSET_21
    quantised.producer_name, quantised.producer_version = model.producer_name, model.producer_version
    del quantised.metadata_props[:]
    models.check(quantised)
    return quantised


def _write(source: Path, target: Path, cache: Path, scheme: Scheme, step: Step, options: dict[str, Any]) -> None:
    with _opset_advice_silenced():
        quantize_static(
            source,
            target,
            None,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt16 if step.activations == "int16" else QuantType.QUInt8,
            weight_type=QuantType.QInt16 if step.weights == "int16" else QuantType.QInt8,
            calibrate_method=CalibrationMethod[scheme.method],
            calibration_cache_path=cache,
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
