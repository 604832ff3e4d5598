"""Fills the tables of `docs/troubleshooting.md` from the codes and hints in the code. Run by `make generate`."""

from __future__ import annotations

import re
from pathlib import Path

from converter.contracts.failures import FAILURES
from converter.gateway.http.errors import ERRORS

PAGE = Path(__file__).parents[1] / "docs" / "troubleshooting.md"
_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

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
    "stage_out_of_disk": "The disk of the stage's work directory was full.",
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
        [(str(row.status), f"`{code}`", row.message, row.hint) for code, row in rows],
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
