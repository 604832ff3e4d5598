"""Finds the range of every tensor of a model, one sample at a time.

ONNX Runtime's calibrators keep every tensor of every run in memory: gigabytes for a hundred images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from converter.stage_bie.extremes import Extremes
from converter.stage_bie.histograms import Histogram, Histograms
from converter.toolchain import models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from converter.stage_bie.schemes import Scheme
    from converter.toolchain.samples import Feeds, Sample

Ranges = dict[str, tuple[float, float]]
_STEPS = {"int8": 2**8 - 1, "mixed": 2**8 - 1, "int16": 2**16 - 1}


class Calibrated(NamedTuple):
    """What calibration found."""

    ranges: TensorsData
    not_finite: list[str]
    """The tensors that took NaN or infinite values; they have no range."""
    used: list[str]
    """The names of the samples."""


def calibrate(
    model: Path, scratch: Path, scheme: Scheme, samples: Iterable[tuple[str, Sample]], done: Callable[[int], None]
) -> Calibrated:
    """Runs the model at `model` on all `samples`; after each, `done` is told how many that makes."""
    observer = _observer(models.load(model), scratch, scheme)
    used: list[str] = []
    for name, sample in samples:
        observer.add(sample.feeds)
        used.append(name)
        done(len(used))
    found = sorted(observer.bounds().items())
    finite = {name: bounds for name, bounds in found if np.isfinite(bounds).all()}
    ranges = {name: TensorData(lowest=low, highest=high) for name, (low, high) in finite.items()}
    return Calibrated(
        # However they were found: the quantiser takes a range as it is.
        ranges=TensorsData(CalibrationMethod.MinMax, ranges),
        not_finite=[name for name, _ in found if name not in finite],
        used=used,
    )


class _Observer(Protocol):
    """Watches a model's tensors while it runs."""

    def add(self, feeds: Feeds) -> None:
        """Takes one run in."""

    def bounds(self) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        """Lowest and highest value by tensor."""


def _observer(model: onnx.ModelProto, scratch: Path, scheme: Scheme) -> _Observer:
    tensors = quantisable(model)
    if scheme.method == "MinMax":
        return Extremes(model, scratch, tensors)
    return Histograms(model, scratch, tensors, lambda histogram: _chosen(histogram, scheme))


def quantisable(model: onnx.ModelProto) -> set[str]:
    """The floating-point tensors that an operator which can be quantised reads or gives."""
    graph = model.graph
    floating = {
        value.name
        for value in (*graph.input, *graph.output, *graph.value_info)
        if models.is_floating(value.type.tensor_type.elem_type)
    }
    found = {
        name
        for node in graph.node
        if node.op_type in QLinearOpsRegistry or node.op_type in QDQRegistry
        for name in (*node.input, *node.output)
    }
    return found & floating - {tensor.name for tensor in graph.initializer}


def _chosen(histogram: Histogram, scheme: Scheme) -> tuple[float, float]:
    if scheme.percentile is not None:
        return histogram.percentile(scheme.percentile)
    return histogram.least_square_error(_STEPS[scheme.steps[0].activations])


def bounds(ranges: TensorsData) -> Ranges:
    """Lowest and highest value by tensor, as the artifact keeps them."""
    return {name: _bounds(*data.range_value) for name, data in ranges.items()}


def _bounds(low: NDArray[Any], high: NDArray[Any]) -> tuple[float, float]:
    return float(np.ravel(low)[0]), float(np.ravel(high)[0])
