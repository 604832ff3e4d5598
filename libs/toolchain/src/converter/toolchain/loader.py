"""Opens an artifact of the reference toolchain and runs it.

    artifact = load(Path("digits_cnn.ref.nef"))
    artifact.self_test()
    outputs = artifact.run_file(Path("3.png").read_bytes())

A `.ref.bie` and a `.ref.nef` hold the same kinds of members: the quantised model (`model.onnx`, QDQ), its data ranges,
a golden sample with what the model must answer to it, and the report of the quantisation.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct, convert

from converter.toolchain import container, reference
from converter.toolchain.accuracy import Agreement
from converter.toolchain.models import TensorSpec
from converter.toolchain.preprocessing import Preprocessing
from converter.toolchain.samples import Feeds, Sample, sample_of
from converter.toolchain.sessions import Execution, open_session

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MODEL, REPORT, RANGES = "model.onnx", "report.json", "ranges.json"
_GOLDEN_INPUT, _GOLDEN_OUTPUT = "golden/input/{}.npy", "golden/output/{}.npy"
EXACT = 1e-5
"""How far a re-run of the same graph may be off, relative to the output's largest value: float rounding, no more."""


class SelfTest(Struct, frozen=True, kw_only=True):
    """What became of the golden sample: once computed as the graph is written, once with the CPU's integer kernels."""

    passed: bool
    as_written: dict[str, dict[str, Any]]
    kernels: dict[str, dict[str, Any]]


class Golden(Struct, frozen=True, kw_only=True):
    """One sample and the quantised model's answer to it, computed as the graph is written."""

    sample: Sample
    answer: dict[str, Any]

    def members(self) -> dict[str, bytes]:
        """As members of a container, numbered in the order of the model's inputs and outputs."""
        inputs = {_GOLDEN_INPUT.format(i): array for i, array in enumerate(self.sample.raw.values())}
        outputs = {_GOLDEN_OUTPUT.format(i): array for i, array in enumerate(self.answer.values())}
        return {name: _npy(array) for name, array in {**inputs, **outputs}.items()}


class Artifact:
    """An artifact, verified and ready to run. Inputs and outputs are keyed by name, in the model's order."""

    def __init__(self, content: container.Container) -> None:
        about = content.about
        self.content = content
        self.model = content.member(MODEL)
        self.inputs = tuple(convert(spec, TensorSpec) for spec in about["inputs"])
        self.outputs = tuple(convert(spec, TensorSpec) for spec in about["outputs"])
        self.preprocessing = convert(about["preprocess"], Preprocessing) if about["preprocess"] else None
        self._session = open_session(self.model)

    @property
    def report(self) -> dict[str, Any]:
        """The report of the quantisation."""
        return dict(json.loads(self.content.member(REPORT)))

    @property
    def golden(self) -> Golden:
        """The golden sample."""
        raw = {spec.name: _array(self.content.member(_GOLDEN_INPUT.format(i))) for i, spec in enumerate(self.inputs)}
        answer = {
            spec.name: _array(self.content.member(_GOLDEN_OUTPUT.format(i))) for i, spec in enumerate(self.outputs)
        }
        # Pixels have lost their batch axis and layout; arrays are kept as the model takes them.
        pixels = self.preprocessing if all(array.dtype == np.uint8 for array in raw.values()) else None
        return Golden(sample=Sample(raw=raw, preprocessing=pixels), answer=answer)

    def run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """What the model computes for `feeds`, with the CPU's integer kernels."""
        return dict(zip((spec.name for spec in self.outputs), self._session.run(None, feeds), strict=True))

    def run_file(self, content: bytes) -> dict[str, NDArray[Any]]:
        """What the model computes for an image, or for a .npy or .npz file.

        Raises:
            Unreadable: the file is damaged or of no known format.
            ConversionRefused: it does not fit the model's inputs.
        """
        return self.run(sample_of(content, self.inputs, self.preprocessing).feeds)

    def self_test(self) -> SelfTest:
        """Runs the golden sample. Passed: as written, the answer is the one that the container holds.

        Integer kernels may round otherwise than the graph says, so their agreement is told but not judged.
        """
        golden = self.golden
        written = open_session(self.model, Execution.AS_WRITTEN).run(None, golden.sample.feeds)
        fast = self.run(golden.sample.feeds)
        passed, as_written, kernels = True, {}, {}
        for (name, expected), computed in zip(golden.answer.items(), written, strict=True):
            passed &= same(expected, computed)
            as_written[name], kernels[name] = compared(expected, computed), compared(expected, fast[name])
        return SelfTest(passed=passed, as_written=as_written, kernels=kernels)


def load(path: Path) -> Artifact:
    """The artifact at `path`, a `.ref.bie` or `.ref.nef`, every digest verified.

    Raises:
        container.Corrupt: it is neither, or has been changed.
    """
    content = container.read(path, reference.BIE_MEDIA_TYPE, reference.NEF_MEDIA_TYPE)
    try:
        return Artifact(content)
    except container.Corrupt:
        raise
    except Exception as error:  # whatever the runtime says of a model that it does not take
        raise container.Corrupt(f"the container's model cannot be opened: {error}"[:300]) from error


def same(expected: NDArray[Any], computed: NDArray[Any]) -> bool:
    """Whether two runs of one graph agree within `EXACT`."""
    if expected.shape != computed.shape or expected.dtype != computed.dtype:
        return False
    if expected.dtype.kind != "f":
        return bool(np.array_equal(expected, computed))
    tolerance = EXACT * float(np.abs(np.nan_to_num(expected)).max(initial=0.0))
    return bool(np.allclose(expected, computed, rtol=0.0, atol=tolerance, equal_nan=True))


def compared(expected: NDArray[Any], computed: NDArray[Any]) -> dict[str, Any]:
    """The figures of one pair of arrays."""
    agreement = Agreement()
    agreement.add(expected, computed)
    return agreement.figures()


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _array(content: bytes) -> NDArray[Any]:
    loaded: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return loaded
