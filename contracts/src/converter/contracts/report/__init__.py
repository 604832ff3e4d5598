"""The report of a conversion: what each finished stage found out about the model, a module for each.

Both toolchains write the same shape; a part that only one of them has is null or empty with the other. Readers pass
over fields that they do not know: a newer worker may tell more. Sizes are in bytes; times are in seconds where the name
does not say otherwise.
"""

from __future__ import annotations

from msgspec import Struct

from converter.contracts.report.bie import BieReport
from converter.contracts.report.nef import NefReport
from converter.contracts.report.onnx import OnnxReport

__all__ = ["BieReport", "NefReport", "OnnxReport", "Report", "StageReports"]


class StageReports(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Those of the stages that have finished."""

    onnx: OnnxReport | None = None
    bie: BieReport | None = None
    nef: NefReport | None = None


class Report(Struct, frozen=True, kw_only=True):
    """The report of a job."""

    job_id: str
    stages: StageReports
