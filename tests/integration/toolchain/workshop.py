"""Models to convert, and the three converters called as the stages call them, in this process."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from itertools import count
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from converter.common.conversion import Conversion, ConversionTask, Converter
from converter.contracts.job import Options, Preprocess
from converter.stage_bie import reference as bie
from converter.stage_nef import reference as nef
from converter.stage_onnx import reference as onnx_stage

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


class Workshop:
    """Runs converters in directories of their own below `root`. `told` is what the last one said of its progress."""

    def __init__(self, root: Path, filename: str = "model.onnx") -> None:
        self.root, self.filename = root, filename
        self.told: list[tuple[float, str]] = []
        self._numbers = count()

    def onnx(self, model: Path | onnx.ModelProto, **input_shape: tuple[int, ...]) -> Conversion:
        path = model if isinstance(model, Path) else self.saved(model)
        return self._run(onnx_stage.convert, {"model": path}, Options(input_shape=input_shape))

    def bie(
        self, model: Path, images: Path | None = None, *, preprocess: str = "kneron", **quantization: object
    ) -> Conversion:
        inputs = {"onnx": model} | ({"ref_images": images} if images else {})
        return self._run(
            bie.convert, inputs, Options(preprocess=Preprocess(preset=preprocess), quantization=quantization)
        )

    def nef(self, quantised: Path) -> Conversion:
        return self._run(nef.convert, {"bie": quantised}, Options())

    def all(self, model: Path | onnx.ModelProto, images: Path | None = None) -> tuple[Conversion, ...]:
        static = self.onnx(model)
        quantised = self.bie(static.artifact, images)
        return static, quantised, self.nef(quantised.artifact)

    def saved(self, model: onnx.ModelProto) -> Path:
        path = self.root / f"{next(self._numbers)}.onnx"
        onnx.save(model, path)
        return path

    def archive(self, files: Iterable[tuple[str, bytes]]) -> Path:
        """A reference set, as the gateway stores it."""
        path = self.root / f"{next(self._numbers)}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as written:
            for name, content in files:
                written.writestr(name, content)
        return path

    def _run(self, convert: Converter, inputs: dict[str, Path], options: Options) -> Conversion:
        workdir = self.root / str(next(self._numbers))
        workdir.mkdir()
        self.told = []
        task = ConversionTask(
            workdir=workdir,
            inputs=inputs,
            filename=self.filename,
            platform="720",
            model_id=32768,
            version="00A1",
            options=options,
        )
        return convert(task, lambda fraction, activity: self.told.append((fraction, activity)))


def a_model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int | str]],
    outputs: dict[str, list[int | str] | None],
    weights: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
) -> onnx.ModelProto:
    """A float model; inputs whose name begins with `ids` take integers."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info(name, INT64 if name.startswith("ids") else FLOAT, shape)
            for name, shape in inputs.items()
        ],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(values, name) for name, values in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Weights that keep the spread of what passes through them."""
    spread = np.sqrt(2 / max(np.prod(shape[1:]), 1))
    return (np.random.default_rng(seed).standard_normal(shape) * spread).astype(np.float32)


def a_detector(size: int | str = 32) -> onnx.ModelProto:
    """Two heads on one backbone: boxes and scores by anchor, as single-shot detectors have them."""
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "w0"], ["c0"], name="stem", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("LeakyRelu", ["c0"], ["r0"], name="stem_act", alpha=0.1),
        node("Conv", ["r0", "w1"], ["c1"], name="neck", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Sigmoid", ["c1"], ["s1"], name="neck_gate"),
        node("Mul", ["c1", "s1"], ["m1"], name="neck_act"),
        node("Conv", ["m1", "wb"], ["cb"], name="box_head"),
        node("Conv", ["m1", "ws"], ["cs"], name="score_head"),
        node("Sigmoid", ["cs"], ["scores"], name="score"),
        node("Identity", ["cb"], ["boxes"], name="box"),
    ]
    weights = {
        "w0": random(8, 3, 3, 3),
        "w1": random(16, 8, 3, 3, seed=1),
        "wb": random(8, 16, 1, 1, seed=2),
        "ws": random(4, 16, 1, 1, seed=3),
    }
    return a_model(nodes, {"image": ["batch", 3, size, size]}, {"boxes": None, "scores": None}, weights, opset=12)


def a_detector_of_three_scales(size: int = 64) -> onnx.ModelProto:
    """Heads on maps of three sizes, joined from coarse to fine as in YOLO; each gives boxes, objectness and classes."""
    node = helper.make_node
    nodes, weights = [], {"scales": np.array([1, 1, 2, 2], np.float32), "parts": np.array([4, 3], np.int64)}

    def convolved(name: str, source: str, channels: tuple[int, int], kernel: int = 3, stride: int = 1) -> str:
        weights[name] = random(channels[1], channels[0], kernel, kernel, seed=len(weights))
        pads = [kernel // 2] * 4
        nodes.append(node("Conv", [source, name], [f"{name}_c"], name=name, pads=pads, strides=[stride, stride]))
        nodes.append(node("Sigmoid", [f"{name}_c"], [f"{name}_s"], name=f"{name}_gate"))
        nodes.append(node("Mul", [f"{name}_c", f"{name}_s"], [f"{name}_m"], name=f"{name}_act"))
        return f"{name}_m"

    stem = convolved("stem", "image", (3, 8), stride=2)
    fine = convolved("fine", stem, (8, 8), stride=2)
    middle = convolved("middle", fine, (8, 16), stride=2)
    coarse = convolved("coarse", middle, (16, 16), stride=2)
    nodes.append(node("MaxPool", [coarse], ["pooled"], name="pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    nodes.append(node("Concat", [coarse, "pooled"], ["wide"], name="spread", axis=1))
    maps = [("coarse", convolved("neck", "wide", (32, 16), 1), 16)]
    for name, lateral, channels in (("middle", middle, 16), ("fine", fine, 8)):
        nodes.append(node("Resize", [maps[-1][1], "", "scales"], [f"{name}_up"], name=f"{name}_up", mode="nearest"))
        nodes.append(node("Concat", [f"{name}_up", lateral], [f"{name}_j"], name=f"{name}_join", axis=1))
        maps.append((name, convolved(f"{name}_neck", f"{name}_j", (16 + channels, 16), 1), 16))
    for name, source, channels in maps:
        weights[f"{name}_head"] = random(7, channels, 1, 1, seed=len(weights))
        nodes.append(node("Conv", [source, f"{name}_head"], [f"{name}_h"], name=f"{name}_head"))
        parts = [f"{name}_boxes", f"{name}_logits"]
        nodes.append(node("Split", [f"{name}_h", "parts"], parts, name=f"{name}_split", axis=1))
        nodes.append(node("Sigmoid", [f"{name}_logits"], [f"{name}_scores"], name=f"{name}_score"))
    outputs = {f"{name}_{part}": None for name, _, _ in maps for part in ("boxes", "scores")}
    return a_model(nodes, {"image": [1, 3, size, size]}, outputs, weights)


def a_pair_model() -> onnx.ModelProto:
    """Two inputs that take no images: features, and numbers of rows in a table."""
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "ids"], ["rows"], name="look_up", axis=0),
        node("ReduceMean", ["rows"], ["mean"], name="mean", axes=[1], keepdims=0),
        node("Gemm", ["features", "w"], ["projected"], name="project", transB=1),
        node("Add", ["projected", "mean"], ["joined"], name="join"),
        node("Relu", ["joined"], ["out"], name="act"),
    ]
    weights = {"table": random(10, 6), "w": random(6, 4, seed=1)}
    return a_model(nodes, {"features": ["n", 4], "ids": ["n", 3]}, {"out": None}, weights)
