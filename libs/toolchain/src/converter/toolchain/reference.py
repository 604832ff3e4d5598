"""Who the reference toolchain is, and how its artifacts are called."""

from __future__ import annotations

import re
from functools import cache
from importlib import metadata
from pathlib import PurePath
from typing import Any

from converter.common.settings import StageSettings
from converter.contracts.job import Toolchain

_LIBRARIES = ("numpy", "onnx", "onnxruntime", "pillow")
"""Whose versions decide, with this software's own, what comes of a model."""
NOTICE = "Made by the reference toolchain (ONNX Runtime on a CPU). This file does not run on Kneron hardware."
ONNX_MEDIA_TYPE = "application/onnx"
BIE_MEDIA_TYPE = "application/vnd.kneron-converter.ref-bie+zip"
NEF_MEDIA_TYPE = "application/vnd.kneron-converter.ref-nef+zip"
BIE_SUFFIX, NEF_SUFFIX = ".ref.bie", ".ref.nef"

_LONGEST_STEM = 100


def version() -> str:
    """This toolchain's own version."""
    return metadata.version("converter-toolchain")


@cache
def libraries() -> dict[str, str]:
    """The versions of what it is made of, told by what is installed, so that nothing has to be imported."""
    return {name: metadata.version(name) for name in _LIBRARIES}


def toolchain() -> Toolchain:
    """What the record of a job says of this toolchain."""
    parts = ".".join(f"{name}.{version}" for name, version in libraries().items())
    return Toolchain(name="reference", version=f"{version()}+{parts}")


def identity(_: StageSettings) -> Toolchain:
    """The same, whatever the settings."""
    return toolchain()


def description() -> dict[str, Any]:
    """What every report and manifest says of this toolchain."""
    return {"name": "reference", "version": version(), "libraries": libraries()}


def artifact_name(filename: str, suffix: str) -> str:
    """The name of what was made from the client's `filename`: its stem in safe characters, and `suffix`."""
    # Both kinds of slash part a path: the client may run any system.
    stem = PurePath(filename.replace("\\", "/")).name.removesuffix(".onnx")
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._-")[:_LONGEST_STEM]
    return f"{safe or 'model'}{suffix}"
