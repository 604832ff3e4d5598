"""Quantises one model in this process, which is to be a fresh one, and prints what it took; for rows/calibration.py.

python benchmarks/calibrating.py ours|theirs METHOD MODEL IMAGES DIRECTORY
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from converter.contracts.job import Preprocess
from converter.stage_bie import calibration, lifting, quantising, schemes
from converter.stage_bie.evaluation import Evaluation
from converter.toolchain import candidates, models, preprocessing
from converter.toolchain.samples import Feeds, Sample

PERCENTAGE = 0.999
KEYWORDS: dict[str, dict[str, object]] = {
    "LeastSquareError": {"datapath_range_method": "mmse"},
    "Percentile": {"datapath_range_method": "percentage", "percentage": PERCENTAGE},
    "MinMax": {},
}
JUDGED = 8

Samples = Iterator[tuple[str, Sample]]


class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Images, decoded as they are asked for."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def get_next(self) -> Feeds | None:
        """The next feeds; none at the end."""
        _, sample = next(self._samples, (None, None))
        return sample.feeds if sample else None


def ours(method: str, model: Path, samples: Samples, directory: Path) -> Path:
    """The production code, without the stage around it."""
    scheme = schemes.resolve(KEYWORDS[method])
    ranges = calibration.calibrate(model, directory, scheme, samples, lambda _: None).ranges
    target = directory / "ours.onnx"
    models.save(quantising.quantise(models.load(model), directory, ranges, scheme.steps[0], lifting.NOTHING), target)
    return target


def theirs(method: str, model: Path, samples: Samples, directory: Path) -> Path:
    """ONNX Runtime's own, as its manual shows it."""
    target = directory / "theirs.onnx"
    quantize_static(
        str(model),
        str(target),
        Reader(samples),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[method],
        extra_options={
            "ActivationSymmetric": False,
            "WeightSymmetric": True,
            "CalibTensorRangeSymmetric": False,
            "CalibPercentile": 100 * PERCENTAGE,
        },
    )
    return target


def _memory_mb(which: str) -> float:
    found = re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 / 1e6 if found else float("nan")


def main() -> None:
    """Quantise, and say what it took."""
    side, method, model, images, directory = sys.argv[1:]
    idle_mb = _memory_mb("VmRSS")
    inputs = models.inputs(models.load(Path(model)))
    fitted = preprocessing.resolve(Preprocess(preset="kneron"), inputs[0])
    with candidates.drawn(Path(images), inputs, fitted) as drawn:
        every = [*drawn.calibration, *drawn.held_out]
        began = time.perf_counter()
        quantised = {"ours": ours, "theirs": theirs}[side](method, Path(model), drawn.readable(every), Path(directory))
        taken = {"s": time.perf_counter() - began, "MB": _memory_mb("VmHWM") - idle_mb}
        evaluation = Evaluation(Path(model), quantised)
        for name, sample in drawn.readable(every[:JUDGED]):
            evaluation.add(name, sample)
    sys.stdout.write(json.dumps({**taken, "SNR dB": evaluation.snr_db}) + "\n")


if __name__ == "__main__":
    main()
