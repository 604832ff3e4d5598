"""What is in a file: an ONNX model, a `.ref.bie` or a `.ref.nef`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import to_builtins

from converter.common import operators
from converter.common.skim import skim
from converter.toolchain import loader
from converter.toolchain.models import spec_record

if TYPE_CHECKING:
    from pathlib import Path

    from converter.contracts.job import Platform

_ARCHIVE = b"PK\x03\x04"


def describe(path: Path, platform: Platform | None = None) -> dict[str, Any]:
    """What the file at `path` is and holds, by its content; JSON.

    An artifact is verified as a whole: every digest, and whether it still gives its own answer. `platform` is the chip
    to judge an ONNX model's operators by.

    Raises:
        OSError: it cannot be read.
        ConversionRefused: `model_invalid` or `model_unsupported`; the message says what the file looks like.
        container.Corrupt: it is an archive, and no artifact or a changed one.
    """
    with path.open("rb") as file:
        archive = file.read(len(_ARCHIVE)) == _ARCHIVE
    return _artifact(path) if archive else _model(path, platform)


def _model(path: Path, platform: Platform | None) -> dict[str, Any]:
    skimmed = to_builtins(skim(path))
    counts = skimmed.pop("operators")
    table = (
        to_builtins(operators.report(counts, platform))
        if platform
        else {"operators": [{"op": op, "count": count} for op, count in counts.items()]}
    )
    return {"kind": "ONNX model", "size_bytes": path.stat().st_size, **skimmed, **table}


def _artifact(path: Path) -> dict[str, Any]:
    artifact = loader.load(path)
    report = artifact.report
    return {
        "kind": artifact.content.media_type,
        "size_bytes": path.stat().st_size,
        "notice": artifact.content.about["notice"],
        "target": artifact.content.about["target"],
        "inputs": [spec_record(spec) for spec in artifact.inputs],
        "outputs": [spec_record(spec) for spec in artifact.outputs],
        "preprocess": artifact.preprocessing.record() if artifact.preprocessing else None,
        "step": report["quantisation"]["step"],
        "snr_db": report["accuracy"]["snr_db"],
        "verdict": report["verdict"],
        "calibration": {key: report["calibration"][key] for key in ("origin", "used", "set_sha256")},
        "warnings": report["warnings"],
        "members": {name: len(content) for name, content in artifact.content.members.items()},
        "self_test": "passed" if artifact.self_test().passed else "failed",
    }
