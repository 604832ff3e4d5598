"""Finds the range of every tensor of a model, one sample at a time.

Given all samples at once, ONNX Runtime's calibrators keep every tensor of every run in memory (6.3 GB for 100 images,
where one at a time takes 233 MB).
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import CalibraterBase, TensorData, TensorsData, create_calibrator
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from converter.common.conversion import ConversionRefused
from converter.stage_bie.extremes import Extremes
from converter.toolchain import models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from converter.stage_bie.schemes import Scheme
    from converter.toolchain.samples import Feeds, Sample

Ranges = dict[str, tuple[float, float]]


class _OneSample(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """The calibrators' way to be handed data, for a single run."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds: Feeds | None = feeds

    def get_next(self) -> Feeds | None:
        feeds, self._feeds = self._feeds, None
        return feeds


def calibrate(
    model: Path, scratch: Path, scheme: Scheme, samples: Iterable[tuple[str, Sample]], done: Callable[[int], None]
) -> tuple[TensorsData, list[str]]:
    """The range of every tensor that can be quantised, over all `samples`, and their names; `done` hears of each.

    Raises:
        ConversionRefused: `quantisation_failed`: a tensor takes values that are not finite.
    """
    method = CalibrationMethod[scheme.method]
    observer = _observer(model, scratch, scheme)
    used: list[str] = []
    for name, sample in samples:
        observer.add(sample.feeds)
        used.append(name)
        done(len(used))
    found = sorted(observer.bounds().items())
    return TensorsData(method, {name: _range(name, *bounds) for name, bounds in found}), used


class _Observer(Protocol):
    """Watches a model's tensors while it runs."""

    def add(self, feeds: Feeds) -> None:
        """Takes one run in."""

    def bounds(self) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        """Lowest and highest value by tensor."""


def _observer(model: Path, scratch: Path, scheme: Scheme) -> _Observer:
    operators = sorted({*QLinearOpsRegistry, *QDQRegistry})
    if scheme.method == "MinMax":
        tensors, _ = CalibraterBase(model, operators).select_tensors_to_calibrate(models.load(model))
        return Extremes(model, scratch, tensors)
    return _Histograms(model, scratch, scheme, operators)


class _Histograms:
    """ONNX Runtime's calibrators that keep a histogram of each tensor."""

    def __init__(self, model: Path, scratch: Path, scheme: Scheme, operators: list[str]) -> None:
        options = {"symmetric": False} | ({"percentile": scheme.percentile} if scheme.method == "Percentile" else {})
        self._calibrator = create_calibrator(
            model,
            operators,
            augmented_model_path=str(scratch / "observed.onnx"),
            calibrate_method=CalibrationMethod[scheme.method],
            providers=["CPUExecutionProvider"],
            extra_options=options,
        )

    def add(self, feeds: Feeds) -> None:
        with redirect_stdout(io.StringIO()):  # it prints the same line for every sample
            self._calibrator.collect_data(_OneSample(feeds))

    def bounds(self) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        """Only these: a histogram has done its work by now."""
        return {name: data.range_value for name, data in self._calibrator.compute_data().items()}


def _range(name: str, low: NDArray[Any], high: NDArray[Any]) -> TensorData:
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ConversionRefused("quantisation_failed", f"the tensor {name!r} takes values that are not finite")
    return TensorData(lowest=low, highest=high)


def bounds(ranges: TensorsData) -> Ranges:
    """Lowest and highest value by tensor, as the artifact keeps them."""
    return {name: _bounds(*data.range_value) for name, data in ranges.items()}


def _bounds(low: NDArray[Any], high: NDArray[Any]) -> tuple[float, float]:
    return float(np.ravel(low)[0]), float(np.ravel(high)[0])
