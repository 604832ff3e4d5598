"""Writes the quantised model: standard ONNX with QuantizeLinear and DequantizeLinear pairs (QDQ)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

from converter.toolchain import models

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from converter.stage_bie.schemes import Scheme

_QUANTISE, _DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
_PREPROCESSED = ("onnx.quant.pre_process", "onnxruntime.quant")


def quantise(model: onnx.ModelProto, scratch: Path, scheme: Scheme, ranges: TensorsData) -> onnx.ModelProto:
    """`model` quantised to 8 bits, weights channel by channel; equal arguments give equal models."""
    source, target, cache = scratch / "float.onnx", scratch / "quantised.onnx", scratch / "ranges.json"
    # Tells the quantiser that the onnx stage has done what it would advise in its log.
    key, value = _PREPROCESSED
    marked = type(model)()
    marked.CopyFrom(model)
    marked.metadata_props.add(key=key, value=value)
    models.save(marked, source)
    save_tensors_data(ranges, cache, smooth_quant=False)
    quantize_static(
        source,
        target,
        None,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[scheme.method],
        calibration_cache_path=cache,
        extra_options={
            "ActivationSymmetric": False,
            "WeightSymmetric": True,
            "TensorQuantOverrides": _softmax_ranges(model, ranges),
        },
    )
    quantised = models.load(target)
    models.set_opset(quantised, models.opset(quantised))
    quantised = models.infer_shapes(quantised)
    quantised.ir_version = model.ir_version
    quantised.producer_name, quantised.producer_version = model.producer_name, model.producer_version
    del quantised.metadata_props[:]
    models.check(quantised)
    return quantised


def _softmax_ranges(model: onnx.ModelProto, ranges: TensorsData) -> dict[str, list[dict[str, Any]]]:
    """The ranges that were found for the outputs of Softmax.

    ONNX Runtime takes 0..1 for granted there; with 1000 classes every answer below 1/510 would become 0.
    """
    outputs = [node.output[0] for node in model.graph.node if node.op_type == "Softmax"]
    found = {name: ranges[name].range_value for name in outputs if name in ranges}
    return {name: [{"rmin": np.ravel(low)[0], "rmax": np.ravel(high)[0]}] for name, (low, high) in found.items()}


def coverage(quantised: onnx.ModelProto) -> dict[str, Any]:
    """How much of the model computes with 8 bits, and which operators stay in floating point.

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
