"""The nef stage of the reference toolchain: packages a quantised model and proves that the package runs.

The self-test opens the finished file from disk through the loader that clients use, with new sessions. It stays in this
process, which the jail may deny to start another.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from converter.common.conversion import Conversion, ConversionRefused
from converter.toolchain import container, loader, reference
from converter.toolchain.accuracy import GOOD_DB
from converter.toolchain.reporting import file_record, target_record
from converter.toolchain.steps import Steps

if TYPE_CHECKING:
    from pathlib import Path

    from converter.common.conversion import ConversionTask, Progress

_TIMED_RUNS = 20
_LONGEST_TIMING_S = 5.0


def convert(task: ConversionTask, progress: Progress) -> Conversion:
    """Makes `<model>.ref.nef` of the bie stage's artifact.

    Raises:
        ConversionRefused: `artifact_corrupt`, `self_test_failed`, or `conversion_failed`.
    """
    steps = Steps(progress)
    source = task.inputs["bie"]
    target = task.workdir / reference.artifact_name(task.filename, reference.NEF_SUFFIX)
    if any(value != "default" for value in task.options.quantization.values()):
        steps.warn(
            "The reference toolchain does not compile; it ignores these quantization keywords: "
            f"{', '.join(sorted(task.options.quantization))}."
        )
    with steps.step("open", at=0.0, code="artifact_corrupt", activity="opening the quantised model"):
        content = container.read(source, reference.BIE_MEDIA_TYPE)
        steps.say(f"{len(content.members)} members verified")
    with steps.step("package", at=0.2, code="conversion_failed", activity="packaging"):
        about = {**content.about, **_about(task, source)}
        container.write(target, reference.NEF_MEDIA_TYPE, about, content.members)
        steps.say(f"{target.stat().st_size} bytes")
    with steps.step("self_test", at=0.4, code="self_test_failed", activity="testing the package"):
        artifact = loader.load(target)
        outcome = artifact.self_test()
        if not outcome.passed:
            raise ConversionRefused(
                "self_test_failed", f"the packaged model answers otherwise than it did: {outcome.as_written}"
            )
        _warn_of_kernels(outcome, steps)
    with steps.step("latency", at=0.7, code="self_test_failed", activity="timing the package"):
        latency = _latency_ms(artifact)
        steps.say(f"p50 {latency['p50']} ms, p95 {latency['p95']} ms")
    progress(1.0, "done")
    return Conversion(
        artifact=target,
        filename=target.name,
        media_type=reference.NEF_MEDIA_TYPE,
        toolchain=reference.toolchain(),
        report={
            **_report(task, source, outcome),
            "warnings": list(steps.warnings),
            "timings": {**steps.timings(), "latency_ms": latency},
        },
        warnings=tuple(steps.warnings),
    )


def _report(task: ConversionTask, source: Path, outcome: loader.SelfTest) -> dict[str, Any]:
    return {
        "stage": "nef",
        **_about(task, source),
        "self_test": {
            "process": "the converter's own, with new sessions on the finished file",
            "tolerance": loader.EXACT,
            "passed": outcome.passed,
            "as_written": outcome.as_written,
            "kernels": outcome.kernels,
        },
    }


def _about(task: ConversionTask, source: Path) -> dict[str, Any]:
    """What the manifest and the report say of the package, beyond what the quantised model's say."""
    return {
        "notice": reference.NOTICE,
        "toolchain": reference.description(),
        "target": target_record(task),
        "bie_sha256": file_record(source)["sha256"],
    }


def _warn_of_kernels(outcome: loader.SelfTest, steps: Steps) -> None:
    for name, figures in outcome.kernels.items():
        steps.say(f"{name}: integer kernels " + ("exact" if figures["exact"] else f"at {figures['snr_db']} dB"))
        if not figures["exact"] and (figures["snr_db"] is None or figures["snr_db"] < GOOD_DB):
            steps.warn(
                f"The output {name!r} computed with this CPU's integer kernels is {figures['snr_db']} dB from what the "
                "quantised graph says."
            )


def _latency_ms(artifact: loader.Artifact) -> dict[str, Any]:
    """How long one run takes, from up to `_TIMED_RUNS` runs in at most about `_LONGEST_TIMING_S`."""
    feeds = artifact.golden.sample.feeds
    taken: list[float] = []
    while len(taken) < _TIMED_RUNS and sum(taken) < _LONGEST_TIMING_S:
        started = time.perf_counter()
        artifact.run(feeds)
        taken.append(time.perf_counter() - started)
    median, late = np.percentile(taken, [50, 95]) * 1000
    return {"p50": round(float(median), 3), "p95": round(float(late), 3), "runs": len(taken)}
