"""The bie stage of the reference toolchain: quantises a model to 8 bits and says how well that went."""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from converter.common.conversion import Conversion, ConversionRefused
from converter.stage_bie import calibration, candidates, quantising, schemes
from converter.stage_bie.evaluation import Evaluation, layers
from converter.toolchain import container, loader, models, preprocessing, reference
from converter.toolchain.steps import Steps

if TYPE_CHECKING:
    import onnx

    from converter.common.conversion import ConversionTask, Progress
    from converter.stage_bie.candidates import Candidate, Candidates
    from converter.stage_bie.schemes import Scheme
    from converter.toolchain.preprocessing import Preprocessing

_CALIBRATED, _QUANTISED, _EVALUATED = 0.5, 0.6, 0.85


def convert(task: ConversionTask, progress: Progress) -> Conversion:
    """Makes `<model>.ref.bie` of the onnx stage's artifact and the reference set, if there is one.

    Raises:
        ConversionRefused: `calibration_unreadable`, `calibration_mismatch`, `quantisation_failed`,
            `accuracy_below_minimum`, `artifact_corrupt` or `conversion_failed`.
    """
    with TemporaryDirectory(dir=task.workdir) as scratch:
        return _Quantisation(task, progress, Path(scratch)).run()


class _Quantisation:
    """One run of the stage: what its steps share."""

    def __init__(self, task: ConversionTask, progress: Progress, scratch: Path) -> None:
        self.task, self.progress, self.scratch = task, progress, scratch
        self.steps = Steps(progress)
        self.source = task.inputs["onnx"]
        self.target = task.workdir / reference.artifact_name(task.filename, reference.BIE_SUFFIX)
        self.quantised_path = scratch / "model.onnx"

    def run(self) -> Conversion:
        scheme = self._scheme()
        with self.steps.step("load", at=0.0, code="artifact_corrupt", activity="loading the model"):
            model = models.load(self.source)
            inputs = models.inputs(model)
        fitted = self._preprocessing(inputs)
        with candidates.drawn(self.task.inputs.get("ref_images"), inputs, fitted) as drawn:
            self._warn_of_data(drawn)
            ranges, used = self._calibrate(scheme, drawn)
            quantised = self._quantise(model, scheme, ranges)
            evaluation, golden, accuracy = self._evaluate(drawn, model, quantised)
        self._judge(evaluation, scheme)
        report = {
            "stage": "bie",
            "notice": reference.NOTICE,
            "toolchain": reference.description(),
            "source": _file(self.source),
            "quantisation": {**scheme.record(), **quantising.coverage(quantised)},
            "preprocess": fitted.record() if fitted else None,
            "calibration": drawn.record(used),
            "accuracy": accuracy,
            "verdict": accuracy["verdict"],
            "warnings": list(self.steps.warnings),
        }
        with self.steps.step("package", at=0.97, code="conversion_failed", activity="packaging"):
            self._package(model, quantised, report, golden, calibration.bounds(ranges))
            self.steps.say(f"{self.target.stat().st_size} bytes")
        self.progress(1.0, "done")
        return Conversion(
            artifact=self.target,
            filename=self.target.name,
            media_type=reference.BIE_MEDIA_TYPE,
            toolchain=reference.toolchain(),
            report={**report, "timings": self.steps.timings()},
            warnings=tuple(self.steps.warnings),
        )

    def _scheme(self) -> Scheme:
        scheme = schemes.resolve(self.task.options.quantization)
        if scheme.ignored:
            self.steps.warn(
                f"The reference toolchain ignores these quantization keywords: {', '.join(scheme.ignored)}."
            )
        return scheme

    def _preprocessing(self, inputs: tuple[models.TensorSpec, ...]) -> Preprocessing | None:
        """How images become the model's input; none where it does not take images."""
        if len(inputs) != 1 or not preprocessing.takes_images(inputs[0]):
            return None
        return preprocessing.resolve(self.task.options.preprocess, inputs[0])

    def _warn_of_data(self, drawn: Candidates) -> None:
        if drawn.origin == "synthetic":
            self.steps.warn(
                "Calibrated with made-up data, as there are no reference images: the ranges and the accuracy figures "
                "say little about real data."
            )
        elif not drawn.held_out:
            self.steps.warn(
                f"The accuracy figures are of the calibration data itself: fewer than {candidates.ENOUGH_TO_HOLD_OUT} "
                "distinct reference files, so none was held out."
            )

    def _calibrate(self, scheme: Scheme, drawn: Candidates) -> tuple[Any, list[str]]:
        """The tensors' ranges, and the names of the samples that they were found with."""
        total = len(drawn.calibration)

        def tell(done: int) -> None:
            self.progress(0.05 + (_CALIBRATED - 0.05) * done / total, f"calibrating, sample {done} of {total}")

        with self.steps.step("calibrate", at=0.05, code="quantisation_failed", activity="calibrating"):
            samples = drawn.readable(drawn.calibration)
            ranges, used = calibration.calibrate(self.source, self.scratch, scheme, samples, tell)
            self.steps.say(f"{scheme.method} over {len(used)} samples, {len(drawn.skipped)} skipped")
        return ranges, used

    def _quantise(self, model: onnx.ModelProto, scheme: Scheme, ranges: Any) -> onnx.ModelProto:  # noqa: ANN401 - onnxruntime ships no types
        with self.steps.step("quantise", at=_CALIBRATED, code="quantisation_failed", activity="quantising"):
            quantised = quantising.quantise(model, self.scratch, scheme, ranges)
            models.save(quantised, self.quantised_path)
            found = quantising.coverage(quantised)
            self.steps.say(f"{found['quantize_linear_nodes']} tensors quantised")
            self.steps.say(f"in float: {found['float_fallback_operators'] or 'nothing'}")
        if not found["quantize_linear_nodes"]:
            self.steps.warn("The model has no operator that can be quantised; it is packaged in floating point.")
        return quantised

    def _evaluate(
        self, drawn: Candidates, model: onnx.ModelProto, quantised: onnx.ModelProto
    ) -> tuple[Evaluation, loader.Golden, dict[str, Any]]:
        judged = (drawn.held_out or drawn.calibration)[: candidates.MOST_JUDGED]
        with self.steps.step("evaluate", at=_QUANTISED, code="quantisation_failed", activity="evaluating"):
            evaluation, golden = self._compare(drawn, judged)
            self.steps.say(f"worst output at {evaluation.record()['snr_db']} dB over {len(judged)} samples")
        with self.steps.step("layers", at=_EVALUATED, code="quantisation_failed", activity="comparing layers"):
            ranked = layers(
                model,
                quantised,
                self.scratch,
                (sample for _, sample in drawn.readable(judged)),
                lambda done: self.progress(_EVALUATED, f"comparing layers, sample {done}"),
            )
            self.steps.say(f"{len(ranked)} tensors" + (f", worst {ranked[0]['tensor']}" if ranked else ""))
        accuracy = {
            "held_out": bool(drawn.held_out),
            **evaluation.record(),
            "layers": ranked,
        }
        return evaluation, golden, accuracy

    def _compare(self, drawn: Candidates, judged: list[Candidate]) -> tuple[Evaluation, loader.Golden]:
        evaluation, golden = Evaluation(self.source, self.quantised_path), list[loader.Golden]()
        names = [spec.name for spec in models.outputs(models.load(self.source))]
        for done, (name, sample) in enumerate(drawn.readable(judged), start=1):
            answer = evaluation.add(name, sample)
            if not golden:
                golden.append(loader.Golden(sample=sample, answer=dict(zip(names, answer, strict=True))))
            at = _QUANTISED + (_EVALUATED - _QUANTISED) * done / len(judged)
            self.progress(at, f"evaluating, sample {done} of {len(judged)}")
        return evaluation, golden[0]

    def _judge(self, evaluation: Evaluation, scheme: Scheme) -> None:
        """Warns of what the figures show, and refuses what the client does not want to accept."""
        for sentence in evaluation.collapsed():
            self.steps.warn(sentence)
        figures = evaluation.record()
        if figures["verdict"] == "poor":
            self.steps.warn(f"Poor accuracy: the output {evaluation.worst_output!r} has {figures['snr_db']} dB.")
        if scheme.min_snr_db is not None and evaluation.snr_db < scheme.min_snr_db:
            raise ConversionRefused(
                "accuracy_below_minimum",
                f"the output {evaluation.worst_output!r} has an SNR of {evaluation.snr_db:.2f} dB, "
                f"asked for are at least {scheme.min_snr_db:g} dB",
            )

    def _package(
        self,
        model: onnx.ModelProto,
        quantised: onnx.ModelProto,
        report: dict[str, Any],
        golden: loader.Golden,
        bounds: calibration.Ranges,
    ) -> None:
        about = {
            "notice": reference.NOTICE,
            "toolchain": reference.description(),
            "target": {
                "platform": self.task.platform,
                "model_id": self.task.model_id,
                "version": self.task.version.lower(),
            },
            "onnx_sha256": report["source"]["sha256"],
            "preprocess": report["preprocess"],
            "inputs": [models.spec_record(spec) for spec in models.inputs(model)],
            "outputs": [models.spec_record(spec) for spec in models.outputs(model)],
        }
        members = {
            loader.MODEL: quantised.SerializeToString(deterministic=True),
            loader.RANGES: container.json_bytes(bounds),
            loader.REPORT: container.json_bytes(report),
            **golden.members(),
        }
        container.write(self.target, reference.BIE_MEDIA_TYPE, about, members)


def _file(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size_bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
