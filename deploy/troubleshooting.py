"""Fills the tables of `docs/troubleshooting.md` from the codes and hints in the code. Run by `make generate`."""

from __future__ import annotations

import re
from pathlib import Path

from converter.contracts.failures import FAILURES
from converter.gateway.http.errors import ERRORS

PAGE = Path(__file__).parents[1] / "docs" / "troubleshooting.md"
_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

WITHOUT_HINT = {
    "invalid_multipart": "The message names the part and what is allowed; `details.limit` says how many images.",
    "insufficient_scope": "Ask the Member Center for `details.required_scope`.",
    "tenant_mismatch": "Use a client of this deployment's tenant (`CONVERTER_TENANT_ID`).",
    "job_not_found": "Check the id, and that the client that posted the job asks; a deleted job is gone.",
    "not_found": "Check the path; a download link also ends with its job.",
    "job_not_ready_for_promote": "Wait until `status` is `completed`; `details.job_status` is what it is now.",
    "source_not_available": "Take one of `details.available`.",
    "job_not_active": "Nothing; DELETE removes a job that has ended.",
    "file_too_large": "Stay below `details.limit_bytes`; the operator sets `MULTIPART_MODEL_MAX_BYTES` and its like.",
    "unsupported_media_type": "Send the `Content-Type` that the endpoint documents.",
    "invalid_object_key": "Send a relative key without `..`, empty segments, backslashes or control characters.",
    "headers_too_large": "Keep all headers together below 32 KiB.",
}
"""What to do about the codes whose rows in `ERRORS` have no hint, since the message of each answer says it."""

FAILED_WHEN = {
    "model_invalid": "The file is no valid ONNX model.",
    "model_unsupported": "The model has something that the converter does not take.",
    "input_shape_required": "An input has a dynamic dimension.",
    "opset_unsupported": "The model's opset is too old or too new.",
    "ir_version_unsupported": "The model's IR version is too new.",
    "operator_unsupported": "The chip or the toolchain lacks an operator.",
    "optimisation_diverged": "After optimisation the model computes something else.",
    "calibration_unreadable": "Too few of the reference images can be read.",
    "calibration_mismatch": "The reference data does not fit the model's inputs.",
    "quantisation_failed": "The quantiser ended with an error.",
    "accuracy_below_minimum": "The quantised model is below `min_snr_db`, at every step that was tried.",
    "compilation_failed": "The compiler ended with an error.",
    "bie_incompatible": "The BIE was made by another version of the toolchain.",
    "artifact_invalid": "What the toolchain made fails its check.",
    "toolchain_aborted": "The vendor's program ended itself.",
    "toolchain_unavailable": "The vendor's toolchain cannot be started.",
    "self_test_failed": "The finished artifact computes something else than the model it was made of.",
    "artifact_corrupt": "A stored object does not have its digest.",
    "conversion_failed": "The converter met an error that it did not expect.",
    "stage_timeout": "The stage took longer than `STAGE_TIMEOUT_S`.",
    "stage_out_of_memory": "The stage used more than `STAGE_MEMORY_MB`.",
    "stage_crashed": "The conversion's process died, or took its worker with it at every attempt.",
    "deadline_exceeded": "The job did not end within `JOB_DEADLINE_HOURS`.",
}


def filled(page: str) -> str:
    """`page` with its tables as the code has them now.

    Raises:
        KeyError: a code is explained nowhere.
    """
    tables = {"errors": _errors(), "failures": _failures()}
    return _BLOCK.sub(lambda block: f"{block[1]}{tables[block[2]]}{block[3]}", page)


def _errors() -> str:
    rows = sorted(ERRORS.items(), key=lambda item: item[1].status)
    return _table(
        ("HTTP", "code", "when", "what to do"),
        [(str(row.status), f"`{code}`", row.message, row.hint or WITHOUT_HINT[code]) for code, row in rows],
    )


def _failures() -> str:
    return _table(
        ("code", "fault", "when", "what to do", "again?"),
        [
            (f"`{code}`", failure.fault, FAILED_WHEN[code], failure.hint, "yes" if failure.retryable else "no")
            for code, failure in FAILURES.items()
        ],
    )


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
