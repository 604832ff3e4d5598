"""Finds the range of every tensor of a model, one sample at a time.

Given all samples at once, ONNX Runtime's calibrators keep every tensor of every run in memory (6.3 GB for 100 images,
where one at a time takes 233 MB).
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import TensorData, TensorsData, create_calibrator
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from converter.common.conversion import ConversionRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from converter.stage_bie.schemes import Scheme
    from converter.toolchain.samples import Feeds, Sample

_KEPT_OUTPUTS = 8

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
    calibrator = create_calibrator(
        model,
        sorted({*QLinearOpsRegistry, *QDQRegistry}),
        augmented_model_path=str(scratch / "observed.onnx"),
        calibrate_method=method,
        providers=["CPUExecutionProvider"],
        extra_options=_extra_options(scheme),
    )
    used: list[str] = []
    for name, sample in samples:
        with redirect_stdout(io.StringIO()):  # it prints the same line for every sample
            calibrator.collect_data(_OneSample(sample.feeds))
        used.append(name)
        done(len(used))
    found = sorted(calibrator.compute_data().items())
    return TensorsData(method, {name: _range(name, data) for name, data in found}), used


def _extra_options(scheme: Scheme) -> dict[str, Any]:
    match scheme.method:
        case "MinMax":
            return {"symmetric": False, "max_intermediate_outputs": _KEPT_OUTPUTS}
        case "Percentile":
            return {"symmetric": False, "percentile": scheme.percentile}
        case "Entropy":
            return {"symmetric": False}


def _range(name: str, data: TensorData) -> TensorData:
    """Only the bounds: a histogram has done its work by now."""
    low, high = data.range_value
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ConversionRefused("quantisation_failed", f"the tensor {name!r} takes values that are not finite")
    return TensorData(lowest=low, highest=high)


def bounds(ranges: TensorsData) -> Ranges:
    """Lowest and highest value by tensor, as the artifact keeps them."""
    return {name: _bounds(*data.range_value) for name, data in ranges.items()}


def _bounds(low: NDArray[Any], high: NDArray[Any]) -> tuple[float, float]:
    return float(np.ravel(low)[0]), float(np.ravel(high)[0])
