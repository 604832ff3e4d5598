"""Who the reference toolchain is, and how its artifacts are called."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import PIL

from converter.contracts.job import Toolchain

VERSION = "1"
"""Changes whenever equal inputs would give other bytes."""
NOTICE = "Made by the reference toolchain (ONNX Runtime on a CPU). This file does not run on Kneron hardware."
ONNX_MEDIA_TYPE = "application/onnx"
BIE_MEDIA_TYPE = "application/vnd.kneron-converter.ref-bie+zip"
NEF_MEDIA_TYPE = "application/vnd.kneron-converter.ref-nef+zip"
BIE_SUFFIX, NEF_SUFFIX = ".ref.bie", ".ref.nef"

_LONGEST_STEM = 100


def toolchain() -> Toolchain:
    """What the record of a job says of this toolchain."""
    return Toolchain(name="reference", version=f"{VERSION}+onnxruntime.{ort.__version__}")


def description() -> dict[str, Any]:
    """What every report and manifest says of this toolchain."""
    libraries = {
        "numpy": np.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": ort.__version__,
        "pillow": PIL.__version__,
    }
    return {"name": "reference", "version": VERSION, "libraries": libraries}


def artifact_name(filename: str, suffix: str) -> str:
    """The name of what was made from the client's `filename`: its stem in safe characters, and `suffix`."""
    # Both kinds of slash part a path: the client may run any system.
    stem = PurePath(filename.replace("\\", "/")).name.removesuffix(".onnx")
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._-")[:_LONGEST_STEM]
    return f"{safe or 'model'}{suffix}"
