"""The bie stage of the vendor's toolchain: estimates the speed, quantises, and compares what came of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from converter.common.conversion import Conversion, ConversionRefused, ConversionTask, Progress
from converter.contracts.quantization import BITWIDTHS, arguments, with_implied
from converter.kneron import evaluation, limits
from converter.kneron.comparison import Comparison
from converter.kneron.driver import REPORT
from converter.kneron.run import Result
from converter.kneron.session import BIE_MEDIA_TYPE, Session
from converter.toolchain import candidates, models, preprocessing
from converter.toolchain.accuracy import complaint
from converter.toolchain.candidates import Candidate, Candidates
from converter.toolchain.reporting import file_record, named
from converter.toolchain.samples import Sample

_SOURCE, _BIE = "model.onnx", "quantised.bie"
_ADVISED_SAMPLES = 100
_MOST_JUDGED = 8
"""The simulator takes seconds to minutes for each."""
_SHARE_OF_MEMORY = 0.5
"""What the reference arrays may take of it: the toolchain keeps all of them in memory, beside its own work."""


def convert(task: ConversionTask, progress: Progress) -> Conversion:
    """Makes `<model>.kdp<chip>.bie` of the onnx stage's artifact and the reference set, if there is one.

    Raises:
        ConversionRefused: `calibration_unreadable`, `calibration_mismatch`, `accuracy_below_minimum`,
            `artifact_invalid`, or what the toolchain failed with.
        MemoryError: the toolchain was killed for want of memory.
    """
    return _Quantisation(task, progress).run()


class _Quantisation:
    """One run of the stage: what its steps share."""

    def __init__(self, task: ConversionTask, progress: Progress) -> None:
        self.session = Session(task, progress)
        self.task, self.steps = task, self.session.steps
        self.keywords = with_implied(task.options.quantization)
        with self.steps.step("load", at=0.0, code="artifact_corrupt", activity="loading the model"):
            self.model = models.load(task.inputs["onnx"])
            limits.check_source(self.model)
            limits.check_static(self.model)
            limits.warn_of_width(self.model, self.keywords, self.steps)
            (self.session.directory / _SOURCE).write_bytes(task.inputs["onnx"].read_bytes())
        self.inputs = models.inputs(self.model)

    def run(self) -> Conversion:
        if "ladder" in self.keywords:
            self.steps.warn("The vendor's toolchain ignores the quantization keyword ladder.")
        fitted = preprocessing.fitted(self.task.options.preprocess, self.inputs)
        with candidates.drawn(self.task.inputs.get("ref_images"), self.inputs, fitted) as drawn:
            with self.steps.step("data", at=0.05, code="calibration_mismatch", activity="preparing reference data"):
                used, calibration = self._write("calibration", drawn, drawn.calibration)
                judged = drawn.held_out or drawn.calibration
                _, samples = self._write("samples", drawn, judged, most=_MOST_JUDGED)
            self._warn_of_data(drawn, len(used))
            calibrated = drawn.record(used)
        result = self._analyse(calibration, samples)
        target = self.session.deliver(_BIE, f".kdp{self.task.platform}.bie")
        accuracy = self._judge(result, len(samples))
        report = {
            "stage": "bie",
            "source": file_record(self.task.inputs["onnx"]),
            "result": {**file_record(target), "name": result.bie_name},
            "quantisation": {"keywords": self.keywords, "threads": self.session.deployment.threads},
            "preprocess": fitted.record() if fitted else None,
            "calibration": calibrated,
            "speed": self._speed(result),
            "layers_snr_db": self._layers(),
            "accuracy": {"held_out": bool(drawn.held_out), **accuracy} if accuracy else None,
            "verdict": accuracy["verdict"] if accuracy else None,
        }
        return self.session.conversion(target, BIE_MEDIA_TYPE, report)

    def _write(
        self, name: str, drawn: Candidates, chosen: list[Candidate], most: int | None = None
    ) -> tuple[list[str], list[list[str]]]:
        """The first `most` readable ones of `chosen` as files of float32, one for each input: their names and files.

        Raises:
            ConversionRefused: `calibration_unreadable`, `calibration_mismatch`, or for too many `stage_out_of_memory`.
        """
        directory = self.session.directory / name
        directory.mkdir()
        room = int(self.session.deployment.memory_mb * _SHARE_OF_MEMORY) << 20
        names, files = [], []
        for number, (label, arrays) in enumerate(islice(self._arrays(drawn.readable(chosen)), most)):
            room -= sum(array.nbytes for array in arrays)
            if room < 0:
                raise ConversionRefused(
                    "stage_out_of_memory",
                    f"{number} of the {len(chosen)} reference samples already take half of the memory that there is",
                    hint="Send fewer reference files; the operator sets STAGE_MEMORY_MB.",
                )
            paths = [directory / f"{number}.{index}.npy" for index in range(len(arrays))]
            for path, array in zip(paths, arrays, strict=True):
                np.save(path, array, allow_pickle=False)
            names.append(label)
            files.append([f"{name}/{path.name}" for path in paths])
        return names, files

    def _arrays(self, samples: Iterator[tuple[str, Sample]]) -> Iterator[tuple[str, list[np.ndarray[Any, Any]]]]:
        """Each sample as the toolchain wants it: one array by input, in the input's shape, of float32."""
        for label, sample in samples:
            feeds = sample.feeds
            yield label, [np.ascontiguousarray(feeds[spec.name], np.float32).reshape(spec.dims) for spec in self.inputs]

    def _warn_of_data(self, drawn: Candidates, used: int) -> None:
        if drawn.origin == "synthetic":
            self.steps.warn(
                "Calibrated with made-up data, as there are no reference images: the model will be far less accurate "
                "than it could be."
            )
        elif used < _ADVISED_SAMPLES:
            self.steps.warn(f"Calibrated with {used} samples; the vendor advises at least {_ADVISED_SAMPLES}.")

    def _analyse(self, calibration: list[list[str]], samples: list[list[str]]) -> Result:
        names = [spec.name for spec in self.inputs]
        result = self.session.ask(
            "analyse",
            at=0.1,
            until=0.95,
            model=_SOURCE,
            bie=_BIE,
            id=self.task.model_id,
            version=self.task.version.lower(),
            platform=self.task.platform,
            threads=self.session.deployment.threads,
            inputs={name: [files[index] for files in calibration] for index, name in enumerate(names)},
            input_names=names,
            samples=samples,
            evaluate=dict.fromkeys(BITWIDTHS, "int8") | arguments(self.keywords, "evaluate"),
            analysis=arguments(self.keywords, "analysis"),
        )
        chips = re.findall(r"kdp(\d{3})", result.bie_name)
        if chips != [self.task.platform] or not result.bie_name.endswith(".bie"):
            raise ConversionRefused(
                "artifact_invalid",
                f"the toolchain called the quantised model {result.bie_name!r}, asked for was kdp{self.task.platform}",
            )
        return result

    def _speed(self, result: Result) -> dict[str, Any]:
        speed = evaluation.speed(result.evaluation)
        if on_cpu := speed["cpu_nodes"]:
            self.steps.warn(
                f"{len(on_cpu)} nodes run on the chip's CPU, and the FPS do not count them: {named(on_cpu)}."
            )
        return speed

    def _layers(self) -> dict[str, float]:
        path = self.session.directory / REPORT
        if not path.is_file():
            return {}
        return evaluation.layer_snr_db(self.session.made(REPORT).read_text(encoding="utf-8", errors="replace"))

    def _judge(self, result: Result, samples: int) -> dict[str, Any] | None:
        """Warns of what the comparison shows, and refuses what the client does not want to accept."""
        minimum = self.keywords.get("min_snr_db")
        comparison = self._comparison(result, samples)
        if comparison is None:
            if minimum is not None:
                raise ConversionRefused(
                    "accuracy_below_minimum",
                    f"the accuracy could not be measured, asked for are at least {minimum:g} dB",
                    evidence=result.not_compared,
                )
            return None
        for output in comparison.outputs:
            if sentence := output.collapse.sentence(output.name):
                self.steps.warn(sentence)
        figures = comparison.record()
        if poor := complaint(comparison.worst.name, comparison.snr_db):
            self.steps.warn(poor)
        if minimum is not None and comparison.snr_db < minimum:
            raise ConversionRefused(
                "accuracy_below_minimum",
                f"the output {comparison.worst.name!r} has an SNR of {comparison.snr_db:.2f} dB, "
                f"asked for are at least {minimum:g} dB",
            )
        return figures

    def _comparison(self, result: Result, samples: int) -> Comparison | None:
        why = result.not_compared
        if why is None:
            try:
                names = [spec.name for spec in models.outputs(self.model)]
                return Comparison(self.session.directory / "outputs", samples, names)
            except (ValueError, OSError) as error:
                why = str(error)
        self.steps.warn(f"The float and the fixed-point model could not be compared: {why[:200]}")
        return None
