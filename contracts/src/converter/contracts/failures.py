"""Every code that a failed job can carry: whose fault it is, whether a repeat may work, what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from converter.contracts.job import JobError

if TYPE_CHECKING:
    from converter.contracts.job import Fault, Stage


class Failure(NamedTuple):
    """What holds of every job that fails with this code."""

    fault: Fault
    retryable: bool
    hint: str


FAILURES: dict[str, Failure] = {
    "model_invalid": Failure("input", retryable=False, hint="Check the model with onnx.checker and export it again."),
    "model_unsupported": Failure(
        "input", retryable=False, hint="Replace or remove what the message names, then export the model again."
    ),
    "input_shape_required": Failure(
        "input",
        retryable=False,
        hint="Give every dynamic input a shape that the model computes with, input_shape=name:1,3,224,224; "
        "leave sizes that the model has fixed as they are.",
    ),
    "opset_unsupported": Failure("input", retryable=False, hint="Export the model with an opset from 8 to 18."),
    "ir_version_unsupported": Failure(
        "input", retryable=False, hint="Export the model with ONNX IR version 9 or older (onnx.save of onnx 1.15)."
    ),
    "operator_unsupported": Failure(
        "input", retryable=False, hint="Replace the operator that is named, or cut the model before it."
    ),
    "optimisation_diverged": Failure(
        "toolchain",
        retryable=False,
        hint="The optimised model computes something else than yours; report it with the model.",
    ),
    "calibration_unreadable": Failure(
        "input", retryable=False, hint="Send PNG, JPEG, BMP or WebP images that open in a viewer."
    ),
    "calibration_mismatch": Failure("input", retryable=False, hint="Send reference data that fits the model's inputs."),
    "quantisation_failed": Failure(
        "toolchain", retryable=False, hint="Look at the stage's log for the node that could not be quantised."
    ),
    "accuracy_below_minimum": Failure(
        "input", retryable=False, hint="Send more typical reference images, or lower quantization.min_snr_db."
    ),
    "compilation_failed": Failure(
        "toolchain", retryable=False, hint="Look at the stage's log for the node that the chip could not take."
    ),
    "bie_incompatible": Failure(
        "service", retryable=True, hint="Post the job again: the toolchain was changed between its stages."
    ),
    "artifact_invalid": Failure(
        "toolchain", retryable=False, hint="The toolchain made another file than was asked for; report it."
    ),
    "toolchain_aborted": Failure(
        "toolchain",
        retryable=False,
        hint="Send fewer reference images or a smaller model; the operator sets KNERON_THREADS.",
    ),
    "toolchain_unavailable": Failure(
        "service", retryable=True, hint="The operator looks at KNERON_PYTHON or KNERON_IMAGE and the stage's log."
    ),
    "self_test_failed": Failure(
        "toolchain", retryable=False, hint="The packaged model does not compute what it did before; report it."
    ),
    "artifact_corrupt": Failure(
        "service", retryable=True, hint="A stored object does not have its digest; post the job again."
    ),
    "conversion_failed": Failure("toolchain", retryable=False, hint="Look at the stage's log."),
    "stage_timeout": Failure(
        "input", retryable=False, hint="Make the model or the reference set smaller; the operator sets STAGE_TIMEOUT_S."
    ),
    "stage_out_of_memory": Failure(
        "input", retryable=False, hint="Make the model or the reference set smaller; the operator sets STAGE_MEMORY_MB."
    ),
    "stage_out_of_disk": Failure(
        "service", retryable=True, hint="Post the job again; the operator makes room below WORK_DIR."
    ),
    "stage_crashed": Failure(
        "toolchain", retryable=True, hint="The conversion ended its process; report it with the model."
    ),
    "deadline_exceeded": Failure(
        "service", retryable=True, hint="Post the job again; the operator sets JOB_DEADLINE_HOURS."
    ),
}


def job_error(
    code: str,
    message: str,
    *,
    stage: Stage | None = None,
    node: str | None = None,
    op: str | None = None,
    evidence: str | None = None,
    hint: str | None = None,
) -> JobError:
    """The error that a job carries for `code`; `hint` replaces the code's own where more is known.

    Raises:
        KeyError: `code` is not in the table.
    """
    failure = FAILURES[code]
    return JobError(
        code=code,
        message=message,
        fault=failure.fault,
        retryable=failure.retryable,
        hint=hint or failure.hint,
        stage=stage,
        node=node,
        op=op,
        evidence=evidence,
    )
