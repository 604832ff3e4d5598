"""The bie stage of the reference toolchain: quantises a model to integers and says how well that went."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from converter.common.conversion import Conversion, ConversionRefused
from converter.stage_bie import calibration, quantising, schemes
from converter.stage_bie.ladder import Ladder
from converter.toolchain import accuracy, candidates, container, loader, models, preprocessing, reference
from converter.toolchain.reporting import file_record, named, target_record
from converter.toolchain.steps import Steps

if TYPE_CHECKING:
    import onnx

    from converter.common.conversion import ConversionTask, Progress
    from converter.stage_bie.ladder import Rung
    from converter.stage_bie.schemes import Scheme
    from converter.toolchain.candidates import Candidates
    from converter.toolchain.preprocessing import Preprocessing

_CALIBRATED, _JUDGED = 0.5, 0.95
_HINT_TO_CLIMB = (
    "Send more typical reference images, let quantization.ladder=auto find wider bit widths, or lower "
    "quantization.min_snr_db."
)


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

    def run(self) -> Conversion:
        scheme = self._scheme()
        with self.steps.step("load", at=0.0, code="artifact_corrupt", activity="loading the model"):
            model = models.load(self.source)
            inputs = models.inputs(model)
        fitted = preprocessing.fitted(self.task.options.preprocess, inputs)
        with candidates.drawn(self.task.inputs.get("ref_images"), inputs, fitted) as drawn:
            self._warn_of_data(drawn)
            calibrated = self._calibrate(scheme, drawn)
            ladder = Ladder(model, self.source, self.scratch, scheme, calibrated.ranges, drawn, self.steps)
            chosen = ladder.climb(_CALIBRATED, _JUDGED)
        self._judge(chosen, ladder, scheme)
        report = self._report(fitted, drawn, calibrated.used, scheme, chosen, ladder)
        with self.steps.step("package", at=0.97, code="conversion_failed", activity="packaging"):
            self._package(model, chosen, report, calibration.bounds(calibrated.ranges))
            self.steps.say(f"{self.target.stat().st_size} bytes")
        self.progress(1.0, "done")
        return Conversion(
            artifact=self.target,
            filename=self.target.name,
            media_type=reference.BIE_MEDIA_TYPE,
            toolchain=reference.toolchain(),
            report={**report, "timings": {**self.steps.timings(), "steps_seconds": ladder.seconds}},
            warnings=tuple(self.steps.warnings),
        )

    def _report(
        self,
        fitted: Preprocessing | None,
        drawn: Candidates,
        used: list[str],
        scheme: Scheme,
        chosen: Rung,
        ladder: Ladder,
    ) -> dict[str, Any]:
        """All but the timings."""
        judged = {"held_out": bool(drawn.held_out), **chosen.evaluation.record(), "layers": chosen.layers}
        return {
            "stage": "bie",
            "notice": reference.NOTICE,
            "toolchain": reference.description(),
            "source": file_record(self.source),
            "quantisation": {
                **scheme.record(),
                **chosen.step.record(),
                "step": chosen.step.name,
                "lifted_to_16_bits": chosen.lifted.record(),
                **quantising.coverage(chosen.model),
            },
            "ladder": {"curve": ladder.curve, "chosen": chosen.step.name, "why": ladder.why(chosen)},
            "preprocess": fitted.record() if fitted else None,
            "calibration": drawn.record(used),
            "accuracy": judged,
            "verdict": judged["verdict"],
            "warnings": list(self.steps.warnings),
        }

    def _scheme(self) -> Scheme:
        scheme = schemes.resolve(self.task.options.quantization, self.task.platform)
        for warning in scheme.warnings:
            self.steps.warn(warning)
        if scheme.ignored:
            self.steps.warn(
                f"The reference toolchain ignores these quantization keywords: {', '.join(scheme.ignored)}."
            )
        return scheme

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

    def _calibrate(self, scheme: Scheme, drawn: Candidates) -> calibration.Calibrated:
        total = len(drawn.calibration)

        def tell(done: int) -> None:
            self.progress(0.05 + (_CALIBRATED - 0.05) * done / total, f"calibrating, sample {done} of {total}")

        # The model has run before, in the onnx stage, on data that was made up.
        with self.steps.step("calibrate", at=0.05, code="calibration_mismatch", activity="calibrating"):
            samples = drawn.readable(drawn.calibration)
            calibrated = calibration.calibrate(self.source, self.scratch, scheme, samples, tell)
            self.steps.say(f"{scheme.method} over {len(calibrated.used)} samples, {len(drawn.skipped)} skipped")
        if names := calibrated.not_finite:
            self.steps.warn(
                "Nodes that compute with NaN or infinite values stay in floating point; there are such values in "
                f"{len(names)} of the tensors: {named(list(map(repr, names)))}. A mask of large finite numbers can be "
                "quantised."
            )
        return calibrated

    def _judge(self, chosen: Rung, ladder: Ladder, scheme: Scheme) -> None:
        """Warns of what the figures show, and refuses what the client does not want to accept."""
        evaluation = chosen.evaluation
        if not quantising.coverage(chosen.model)["quantize_linear_nodes"]:
            self.steps.warn("The model has no operator that can be quantised; it is packaged in floating point.")
        for sentence in evaluation.findings():
            self.steps.warn(sentence)
        if poor := accuracy.complaint(evaluation.worst_output, chosen.snr_db):
            self.steps.warn(poor)
        if scheme.min_snr_db is not None and chosen.snr_db < scheme.min_snr_db:
            raise ConversionRefused(
                "accuracy_below_minimum",
                f"the output {evaluation.worst_output!r} has an SNR of {chosen.snr_db:.2f} dB with {chosen.step.name}, "
                f"the best step; asked for are at least {scheme.min_snr_db:g} dB",
                evidence="; ".join(_told(point) for point in ladder.curve),
                hint=None if scheme.ladder else _HINT_TO_CLIMB,
            )

    def _package(
        self,
        model: onnx.ModelProto,
        chosen: Rung,
        report: dict[str, Any],
        bounds: calibration.Ranges,
    ) -> None:
        about = {
            "notice": reference.NOTICE,
            "toolchain": reference.description(),
            "target": target_record(self.task),
            "onnx_sha256": report["source"]["sha256"],
            "preprocess": report["preprocess"],
            "inputs": [models.spec_record(spec) for spec in models.inputs(model)],
            "outputs": [models.spec_record(spec) for spec in models.outputs(model)],
        }
        members = {
            loader.MODEL: chosen.model.SerializeToString(deterministic=True),
            loader.RANGES: container.json_bytes(bounds),
            loader.REPORT: container.json_bytes(report),
            **chosen.golden.members(),
        }
        container.write(self.target, reference.BIE_MEDIA_TYPE, about, members)


def _told(point: dict[str, Any]) -> str:
    """One step of the curve, in the words of a log."""
    if "failed" in point:
        return f"{point['step']}: {point['failed']}"
    return f"{point['step']}: {point['snr_db']} dB in {point['size_bytes']} bytes"
