"""A stand-in for the vendor's toolchain: holds callers to the documented interface, and makes files of the right names.

Like the real one is said to, it changes the working directory and prints where it likes.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import re
from pathlib import Path

import numpy as np
import onnx
from failing import fail_if_asked
from nef_writer import nef

PLATFORMS = ("520", "720", "530", "630", "730")
_EIGHT_OR_SIXTEEN = ("int8", "int16")
_DATAPATH = (*_EIGHT_OR_SIXTEEN, "mix balance", "mix light", "mixbw")
_BITWIDTHS = {
    "datapath_bitwidth_mode": _DATAPATH,
    "weight_bitwidth_mode": (*_DATAPATH, "int4"),
    "model_in_bitwidth_mode": _EIGHT_OR_SIXTEEN,
    "model_out_bitwidth_mode": _EIGHT_OR_SIXTEEN,
    "cpu_node_bitwidth_mode": _EIGHT_OR_SIXTEEN,
}
_TILING = {"compiler_tiling": ("default", "deep_search")}
_EVALUATE = {**_BITWIDTHS, **_TILING, "weight_bandwidth": (None,), "dma_bandwidth": (None,)}
_ANALYSIS = {
    **_BITWIDTHS,
    **_TILING,
    "quantize_mode": ("default", "post_sigmoid"),
    "datapath_range_method": ("percentage", "mmse"),
    "percentage": (0.999, 1.0),
    "percentage_16b": (0.999, 1.0),
    "percentile": (0.0, 1.0),
    "outlier_factor": (0.0, 100.0),
    "flops_ratio": (0.0, 1.0),
    "quan_config": None,
    "mode": (0, 1, 2, 3),
    "optimize": (0, 1, 2, 3, 4),
}
_COMPILE = {
    **_TILING,
    "dedicated_output_buffer": (True, False),
    "weight_compress": (True, False),
    "flatbuffer": (True, False),
    "weight_bandwidth": (None,),
    "dma_bandwidth": (None,),
}
_RANGES = frozenset({"percentage", "percentage_16b", "percentile", "outlier_factor", "flops_ratio"})


_ALLOWED = {"evaluate": _EVALUATE, "analysis": _ANALYSIS, "compile": _COMPILE}


def check(call, platform, keywords):
    """Hold the keywords of a call to the manual: their names, their values, and what goes together on the chip."""
    allowed = _ALLOWED[call]
    for name, value in keywords.items():
        if name not in allowed:
            raise TypeError(f"{call}() got an unexpected keyword argument {name!r}")
        values = allowed[name]
        fits = values is None or (values[0] <= value <= values[-1] if name in _RANGES else value in values)
        if not fits:
            raise ValueError(f"{call}(): {name} is {value!r}")
    _check_together(platform, keywords)


def _check_together(platform, keywords):
    """What the manual says of keywords that go together, its defaults filled in."""
    datapath, weight = (keywords.get(f"{name}_bitwidth_mode", "int8") for name in ("datapath", "weight"))
    mixbw = "mixbw" in (datapath, weight)
    if mixbw and (datapath, weight) not in {("mixbw", "int16"), ("int16", "mixbw"), ("mixbw", "mixbw")}:
        raise ValueError(f"{datapath} does not go with {weight}")
    if platform == "520" and "int16" in (keywords.get(name) for name in _BITWIDTHS):
        raise ValueError("520 has no int16")
    if platform == "720" and weight == "int4":
        raise ValueError("720 has no int4")
    if "flops_ratio" in keywords and not mixbw:
        raise ValueError("flops_ratio is for mixbw")
    if keywords.get("datapath_range_method") != "mmse" and {"percentile", "outlier_factor"} & set(keywords):
        raise ValueError("percentile and outlier_factor are for mmse")
    if keywords.get("percentage", 0.999) > keywords.get("percentage_16b", 0.999999):
        raise ValueError("percentage is more than percentage_16b")
    if keywords.get("quan_config") is not None and platform != "730":
        raise ValueError("quan_config is for 730")


def _began(call, output_dir):
    os.write(1, f"[{call}] from C\n".encode())
    print(f"[{call}] from Python")
    fail_if_asked(call)
    os.chdir(output_dir)
    return Path(output_dir)


class ModelConfig:
    """One model; the constructor takes keywords alone."""

    def __init__(
        self,
        *,
        id,
        version,
        platform,
        onnx_model=None,
        onnx_path=None,
        bie_path=None,
        radix_json_path=None,
        compiler_config_path=None,
        debug=False,
        input_fmt=None,
    ) -> None:
        del radix_json_path, compiler_config_path, debug
        if not isinstance(id, int) or not re.fullmatch(r"[0-9a-fA-F]{4}", version) or platform not in PLATFORMS:
            raise ValueError(f"id {id!r}, version {version!r}, platform {platform!r}")
        sources = [source for source in (onnx_model, onnx_path, bie_path) if source is not None]
        if len(sources) != 1:
            raise ValueError("exactly one of onnx_model, onnx_path and bie_path")
        if input_fmt is not None and platform != "730":
            raise ValueError("input_fmt is for 730 only")
        if onnx_path and not re.fullmatch(r"[\w./-]+\.onnx", onnx_path):
            raise ValueError(f"special characters in {onnx_path!r}")
        self.id, self.version, self.platform = id, version, platform
        self.model = onnx.load(onnx_path) if onnx_path else onnx_model
        self.bie = json.loads(Path(bie_path).read_text()) if bie_path else None

    def evaluate(self, output_dir="/data1/kneron_flow", **keywords):
        """The IP evaluator's text."""
        check("evaluate", self.platform, keywords)
        if missing := set(_BITWIDTHS) - set(keywords):
            raise TypeError(f"evaluate() missing {missing}")
        _began("evaluate", output_dir)
        chip = f"kdp{self.platform}/ip_eval"
        nodes = self.model.graph.node
        rows = [f"{node.name}, {node.name}, {_unit(node)}, {_unit(node).lower()} node" for node in nodes]
        return "\n".join(
            [
                f"{chip}/fps: 21.352",
                f"{chip}/ITC(ms): 46.8341 ms",
                f"{chip}/RDMA bandwidth GB/s: 0.800000",
                f"{chip}/WDMA bandwidth GB/s: 0.700000",
                f"{chip}/cpu_node: N/A",
                f"{chip}/weight_bitwidth: {keywords['weight_bitwidth_mode']}",
                "node, node origin, type, node backend",
                *rows,
            ]
        )

    def analysis(self, input_mapping, output_dir="/data1/kneron_flow", threads=4, **keywords):
        """The path of the BIE."""
        check("analysis", self.platform, keywords)
        if not isinstance(threads, int) or threads < 1:
            raise ValueError(f"threads is {threads!r}")
        inputs = {value.name: value.type.tensor_type.shape.dim for value in self.model.graph.input}
        if set(input_mapping) != set(inputs):
            raise ValueError(f"the inputs are {set(inputs)}, the mapping has {set(input_mapping)}")
        for name, arrays in input_mapping.items():
            shape = tuple(dim.dim_value for dim in inputs[name])
            for array in arrays:
                if array.shape != shape or array.dtype != np.float32:
                    raise ValueError(f"{name}: {array.shape} of {array.dtype}, wanted {shape} of float32")
        flow = _began("analysis", output_dir)
        asked = os.environ.get("STANDIN_FAILURE")
        (flow / "model_fx_report.html").write_text(
            "<table><tr><th>node</th><th>SNR(dB)</th></tr><tr><td><b>conv</b></td><td>31.5</td></tr></table>"
        )
        chip = "530" if asked == "bie_of_another_chip" else self.platform
        bie = flow / f"input.kdp{chip}.scaled.bie"
        model = base64.b64encode(self.model.SerializeToString()).decode()
        bie.write_text("" if asked == "empty_bie" else json.dumps({"platform": self.platform, "model": model}))
        return str(flow / "missing.bie" if asked == "bie_not_made" else bie)


def _unit(node):
    return "CPU" if node.op_type == "Softmax" else "NPU"


def compile(model_list, output_dir="/data1/kneron_flow", **keywords):
    """The path of the NEF."""
    if not all(isinstance(model, ModelConfig) and model.bie for model in model_list):
        raise ValueError("compile only support models after fix point analysis")
    (model,) = model_list
    check("compile", model.platform, keywords)
    flow = _began("compile", output_dir)
    asked = os.environ.get("STANDIN_FAILURE")
    content = bytearray(
        nef(
            platform="530" if asked == "nef_of_another_chip" else model.platform,
            model_id=model.id + (asked == "nef_of_another_model"),
            version=int(model.version, 16) + (asked == "nef_of_another_version"),
        )
    )
    if asked == "nef_damaged":
        content[len(content) // 2] ^= 1
    path = flow / f"models_{model.platform}.nef"
    path.write_bytes(content)
    return str(path)


def kneron_inference(
    pre_results,
    input_names,
    nef_file="",
    onnx_file="",
    bie_file="",
    model_id=None,
    data_type="float",
    reordering=None,
    platform=520,
):
    """The outputs; of a BIE, those of its float model on a grid."""
    del model_id, reordering
    if sum(map(bool, (nef_file, onnx_file, bie_file))) != 1 or data_type != "float" or str(platform) not in PLATFORMS:
        raise ValueError("exactly one of nef_file, onnx_file and bie_file")
    asked = os.environ.get("STANDIN_FAILURE")
    if asked == "no_simulator":
        raise RuntimeError("the simulator does not start")
    source = onnx_file or base64.b64decode(json.loads(Path(bie_file).read_text())["model"])
    onnxruntime = importlib.import_module("onnxruntime")  # slow, and most tests end before
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    outputs = session.run(None, dict(zip(input_names, pre_results, strict=True)))
    if onnx_file:
        return outputs
    return [np.zeros_like(output) if asked == "collapse" else np.round(output * 64) / 64 for output in outputs]
