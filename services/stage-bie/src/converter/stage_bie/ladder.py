"""Quantises step by step, from narrow to wide, until a step is accurate enough."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from converter.common.conversion import ConversionRefused
from converter.stage_bie import lifting, quantising
from converter.stage_bie.evaluation import Evaluation, layers
from converter.stage_bie.schemes import Step
from converter.toolchain import candidates, loader, models

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx
    from onnxruntime.quantization.calibrate import TensorsData

    from converter.stage_bie.schemes import Scheme
    from converter.toolchain.candidates import Candidates
    from converter.toolchain.steps import Steps

_NARROW = Step(name="int8", activations="int8", weights="int8")


class Rung(Struct, frozen=True, kw_only=True):
    """One step's quantised model, and how good it is."""

    step: Step
    lifted: lifting.Lifted
    model: Any
    size_bytes: int
    evaluation: Evaluation
    golden: loader.Golden
    layers: list[dict[str, Any]]

    @property
    def snr_db(self) -> float:
        """That of the worst output; infinite where all are exact."""
        return self.evaluation.snr_db


class Ladder:
    """Tries the steps of `scheme` on `model` (saved at `source`) with the `drawn` samples.

    `curve` has what was found of each step in order; `seconds` how long each took, by its name.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        source: Path,
        scratch: Path,
        scheme: Scheme,
        ranges: TensorsData,
        drawn: Candidates,
        steps: Steps,
    ) -> None:
        self.curve: list[dict[str, Any]] = []
        self.seconds: dict[str, float] = {}
        self._model, self._source, self._scratch = model, source, scratch
        self._scheme, self._ranges, self._drawn, self._steps = scheme, ranges, drawn, steps
        self._judged = (drawn.held_out or drawn.calibration)[: candidates.MOST_JUDGED]
        self._noise: list[dict[str, Any]] | None = None

    def climb(self, begin: float, end: float) -> Rung:
        """The first step that is accurate enough, or else the best one. The progress goes from `begin` to `end`.

        Raises:
            ConversionRefused: `quantisation_failed`: not one step could be made.
        """
        best: Rung | None = None
        refusal: ConversionRefused | None = None
        width = (end - begin) / len(self._scheme.steps)
        for number, step in enumerate(self._scheme.steps):
            try:
                rung = self._tried(step, begin + number * width, width)
            except ConversionRefused as refused:
                # A wider step may need an opset that the model cannot be brought to; what was made before stands.
                refusal = refusal or refused
                self.curve.append({"step": step.name, "failed": refused.message})
                continue
            if best is None or rung.snr_db > best.snr_db:
                best = rung
            if rung.snr_db >= self.least_db:
                break
        if best is None:
            raise refusal or AssertionError("a scheme has at least one step")
        return best

    @property
    def least_db(self) -> float:
        """What is accurate enough; without a wish, anything is."""
        return -math.inf if self._scheme.min_snr_db is None else self._scheme.min_snr_db

    def why(self, chosen: Rung) -> str:
        """Why `chosen` was chosen, in a sentence."""
        if not self._scheme.ladder:
            return "as asked for"
        if chosen.snr_db >= self.least_db:
            return f"the narrowest step with at least {self.least_db:g} dB"
        return f"no step reaches {self.least_db:g} dB; this one comes nearest"

    def _tried(self, step: Step, begin: float, width: float) -> Rung:
        with self._timed(step.name):
            lifted = lifting.choose(self._model, self._narrow_noise(begin), self._scheme.share) if step.mixed else None
            rung = self._rung(step, lifted or lifting.NOTHING, begin, width)
        if step == _NARROW:
            self._noise = rung.layers
        snr = rung.evaluation.record()["snr_db"]
        self.curve.append({"step": step.name, "snr_db": snr, "size_bytes": rung.size_bytes})
        return rung

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - started, 4)

    def _narrow_noise(self, at: float) -> list[dict[str, Any]]:
        """How noisy each tensor is with 8 bits throughout."""
        if self._noise is None:
            quantised = self._quantised(_NARROW, lifting.NOTHING, at, "8 bits for comparison")
            self._noise = self._layers(quantised, at)
        return self._noise

    def _rung(self, step: Step, lifted: lifting.Lifted, begin: float, width: float) -> Rung:
        quantised = self._quantised(step, lifted, begin, step.name)
        path = self._scratch / "model.onnx"
        models.save(quantised, path)
        with self._steps.step(
            "evaluate", at=begin + 0.2 * width, code="quantisation_failed", activity=f"evaluating {step.name}"
        ):
            evaluation, golden = self._compared(path, begin + 0.2 * width, 0.6 * width)
            self._steps.say(f"worst output at {evaluation.record()['snr_db']} dB over {len(self._judged)} samples")
        return Rung(
            step=step,
            lifted=lifted,
            model=quantised,
            size_bytes=path.stat().st_size,
            evaluation=evaluation,
            golden=golden,
            layers=self._layers(quantised, begin + 0.8 * width),
        )

    def _quantised(self, step: Step, lifted: lifting.Lifted, at: float, what: str) -> onnx.ModelProto:
        with self._steps.step("quantise", at=at, code="quantisation_failed", activity=f"quantising, {what}"):
            quantised = quantising.quantise(self._model, self._scratch, self._ranges, step, lifted)
            found = quantising.coverage(quantised)
            self._steps.say(f"{what}: {found['quantize_linear_nodes']} tensors quantised")
            if step.mixed:
                self._steps.say(f"{len(lifted.activations)} tensors, {len(lifted.weights)} weights to 16 bits")
            self._steps.say(f"in float: {found['float_fallback_operators'] or 'nothing'}")
        return quantised

    def _compared(self, path: Path, begin: float, width: float) -> tuple[Evaluation, loader.Golden]:
        evaluation, golden = Evaluation(self._source, path), list[loader.Golden]()
        names = [spec.name for spec in models.outputs(self._model)]
        for done, (name, sample) in enumerate(self._drawn.readable(self._judged), start=1):
            answer = evaluation.add(name, sample)
            if not golden:
                golden.append(loader.Golden(sample=sample, answer=dict(zip(names, answer, strict=True))))
            at = begin + width * done / len(self._judged)
            self._steps.progress(at, f"evaluating, sample {done} of {len(self._judged)}")
        evaluation.finish()
        return evaluation, golden[0]

    def _layers(self, quantised: onnx.ModelProto, at: float) -> list[dict[str, Any]]:
        with self._steps.step("layers", at=at, code="quantisation_failed", activity="comparing layers"):
            ranked = layers(
                self._model,
                quantised,
                self._scratch,
                (sample for _, sample in self._drawn.readable(self._judged)),
                lambda done: self._steps.progress(at, f"comparing layers, sample {done}"),
            )
            self._steps.say(f"{len(ranked)} tensors" + (f", worst {ranked[0]['tensor']}" if ranked else ""))
        return ranked
