"""The vendor's adapter, with a plain Python that has the stand-ins as the vendor's."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from standins.vendor_python import STANDINS, an_interpreter

from converter.common.conversion import Conversion, ConversionTask
from converter.common.settings import StageSettings
from converter.contracts.job import Options, Preprocess, Toolchain
from converter.kneron import bie, deployment, nef
from converter.kneron import onnx as onnx_stage


def settings(python: Path) -> StageSettings:
    return StageSettings(
        toolchain="kneron",
        kneron_python=python,
        kneron_home=STANDINS,
        kneron_writable_dirs=str(python.parent),
        kneron_threads=2,
    )


class Works:
    """Runs the three converters in this process. `install` names the failure that happens from then on."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self._set, self._numbers = monkeypatch.setenv, count()
        self.told: list[tuple[float, str]] = []
        self.install()

    def install(self, failure: str = "") -> None:
        directory = self.root / f"vendor-{next(self._numbers)}"
        directory.mkdir()
        for name, value in deployment.confinement(settings(an_interpreter(directory, failure))).environment.items():
            self._set(name, value)

    def onnx(self, model: onnx.ModelProto, **input_shape: tuple[int, ...]) -> Conversion:
        path = self.root / f"{next(self._numbers)}.onnx"
        onnx.save(model, path)
        return self._run(onnx_stage.convert, {"model": path}, Options(input_shape=input_shape))

    def bie(self, model: Path, images: Path | None = None, platform: str = "720", **quantization: object) -> Conversion:
        inputs = {"onnx": model} | ({"ref_images": images} if images else {})
        options = Options(preprocess=Preprocess(preset="kneron"), quantization=quantization)
        return self._run(bie.convert, inputs, options, platform=platform)

    def nef(self, quantised: Path, made_by: Toolchain | None, **quantization: object) -> Conversion:
        return self._run(nef.convert, {"bie": quantised}, Options(quantization=quantization), made_by=made_by)

    def images(self, *files: tuple[str, bytes]) -> Path:
        path = self.root / f"{next(self._numbers)}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files:
                archive.writestr(name, content)
        return path

    def _run(
        self,
        convert: Callable[..., Conversion],
        inputs: dict[str, Path],
        options: Options,
        *,
        platform: str = "720",
        made_by: Toolchain | None = None,
    ) -> Conversion:
        workdir = self.root / str(next(self._numbers))
        workdir.mkdir()
        self.told = []
        task = ConversionTask(
            workdir=workdir,
            inputs=inputs,
            filename="my net.onnx",
            platform=platform,
            model_id=32769,
            version="00A1",
            options=options,
            made_by=made_by,
        )
        return convert(task, lambda fraction, activity: self.told.append((fraction, activity)))


@pytest.fixture
def works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Works:
    return Works(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that the onnx stage has made."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return Works(tmp_path_factory.mktemp("static"), monkeypatch).onnx(a_classifier()).artifact


@pytest.fixture(scope="session")
def quantised(tmp_path_factory: pytest.TempPathFactory, static: Path) -> Path:
    """What the bie stage has made of it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return Works(tmp_path_factory.mktemp("quantised"), monkeypatch).bie(static).artifact


def a_classifier(batch: int | str = "batch", **model: int) -> onnx.ModelProto:
    """Convolution, pooling and a softmax, which the stand-in says is the CPU's."""
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("Conv", ["image", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
            node("GlobalAveragePool", ["c"], ["p"], name="pool"),
            node("Flatten", ["p"], ["f"], name="flatten"),
            node("Softmax", ["f"], ["scores"], name="softmax", axis=1),
        ],
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    opset, ir_version = model.get("opset", 13), model.get("ir_version", 8)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
