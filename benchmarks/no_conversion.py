"""A converter that converts nothing, in a process that has imported those of the reference toolchain all the same."""

from __future__ import annotations

from converter.common.conversion import Conversion, ConversionTask, Progress
from converter.contracts.job import Toolchain
from converter.stage_bie import reference as bie
from converter.stage_nef import reference as nef
from converter.stage_onnx import reference as onnx

IMPORTED = (onnx, bie, nef)


def convert(task: ConversionTask, progress: Progress) -> Conversion:
    """An artifact of a byte."""
    progress(1.0, "nothing to do")
    artifact = task.workdir / "artifact"
    artifact.write_bytes(b"-")
    return Conversion(
        artifact=artifact,
        filename=artifact.name,
        media_type="application/octet-stream",
        toolchain=Toolchain(name="none", version="1"),
        report={},
    )
