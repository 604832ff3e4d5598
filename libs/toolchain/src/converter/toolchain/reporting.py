"""What the reports of several stages state in the same way."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from converter.common.conversion import ConversionTask


def file_record(path: Path) -> dict[str, Any]:
    """Size in bytes and sha256 of the file at `path`."""
    with path.open("rb") as file:
        return {"size_bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def target_record(task: ConversionTask) -> dict[str, Any]:
    """What the artifact of `task` is for; the version's hex digits in lower case."""
    return {"platform": task.platform, "model_id": task.model_id, "version": task.version.lower()}


def named(names: Sequence[str], most: int = 5) -> str:
    """The first `most` of `names`, for a sentence; an ellipsis stands for the others."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
