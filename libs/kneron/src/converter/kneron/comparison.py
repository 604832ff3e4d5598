"""Whether the fixed-point model still does what the float model does, as far as the toolchain's simulator tells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.toolchain.accuracy import MOST_CHANNELS_NAMED, Agreement, Collapse, verdict


class Output:
    """What is gathered of one output over all samples."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.agreement, self.collapse = Agreement(), Collapse()

    def record(self) -> dict[str, Any]:
        """As reports write it."""
        channels = self.collapse.channels()
        return {
            "name": self.name,
            "simulated": self.agreement.figures(),
            "channels": self.collapse.count,
            "collapsed": self.collapse.entire,
            "collapsed_channels": channels[:MOST_CHANNELS_NAMED],
            "collapsed_channels_count": len(channels),
        }


class Comparison:
    """Compares the outputs that the driver left in `directory` for `samples` samples.

    Raises:
        ValueError, OSError: an output is missing, unreadable, or of another shape than the other model's.
    """

    def __init__(self, directory: Path, samples: int, names: Sequence[str]) -> None:
        self.outputs = [Output(name) for name in names]
        for sample in range(samples):
            for index, output in enumerate(self.outputs):
                pair = [_array(directory / f"{sample}.{kind}.{index}.npy") for kind in ("float", "fixed")]
                output.agreement.add(*pair)
                output.collapse.add(*pair)
        self.samples = samples

    @property
    def worst(self) -> Output:
        """The output with the lowest SNR."""
        return min(self.outputs, key=lambda output: output.agreement.snr_db)

    @property
    def snr_db(self) -> float:
        """The lowest of any output; infinite where all are exact."""
        return self.worst.agreement.snr_db

    def record(self) -> dict[str, Any]:
        """As reports write it."""
        return {
            "method": "The float and the fixed-point model run with ktc.kneron_inference on the same samples.",
            "samples_count": self.samples,
            "snr_db": round(self.snr_db, 3) if math.isfinite(self.snr_db) else None,
            "verdict": verdict(self.snr_db),
            "outputs": [output.record() for output in self.outputs],
        }


def _array(path: Path) -> NDArray[Any]:
    array = np.load(path, allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        raise ValueError(f"{path.name} is no array of float32")
    return array
