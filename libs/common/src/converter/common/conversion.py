"""What a stage's converter is given, and what it gives back.

A converter is a plain function `convert(task, progress) -> Conversion` in a module of its stage. It runs in a
subprocess of its own (see `isolation`), knows nothing of jobs, messages or storage, and may block.

    ConversionRefused    the converter says no: a code of `converter.contracts.failures`, and the facts
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

from msgspec import Struct

from converter.common import disk
from converter.contracts.failures import FAILURES
from converter.contracts.job import Options, Platform, Toolchain


class ConversionTask(Struct, frozen=True, kw_only=True):
    """One attempt's work. Every path lies in `workdir`, which is the attempt's own."""

    workdir: Path
    inputs: dict[str, Path]
    """By role: `model` (what the client sent), `ref_images` (stored ZIP), or the name of the stage before."""
    filename: str
    """The client's name for its model; an artifact's name derives from it."""
    platform: Platform
    model_id: int
    version: str
    options: Options
    made_by: Toolchain | None = None
    """What made the artifact of the stage before."""


class Conversion(Struct, frozen=True, kw_only=True):
    """What an attempt made. Of `report` only `timings` may differ between two equal runs."""

    artifact: Path
    filename: str
    media_type: str
    toolchain: Toolchain
    report: dict[str, Any]
    warnings: tuple[str, ...] = ()


class ConversionRefused(Exception):
    """The converter cannot do this task and says why.

    Args:
        code: one of `FAILURES`.
        message: what was found, in a sentence.
        node: the name of the model's node that it is about.
        op: that node's operator.
        evidence: one line of the toolchain's own words.
        hint: what to change, where more is known than the code's own hint.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        node: str | None = None,
        op: str | None = None,
        evidence: str | None = None,
        hint: str | None = None,
    ) -> None:
        if code not in FAILURES:
            raise ValueError(f"unknown failure code {code!r}")
        super().__init__(message)
        self.code, self.message = code, message
        self.node, self.op, self.evidence, self.hint = node, op, evidence, hint


def exhausted(error: Exception) -> Literal["memory", "disk"] | None:
    """What a library ran out of, whatever its class, told by the words of its `error`.

    Not every library tells that it could not write (ONNX Runtime's optimiser does not), so the disk is tried, too.
    """
    text = str(error)
    if "bad_alloc" in text or "Failed to allocate memory" in text:
        return "memory"
    told = any(os.strerror(number) in text for number in disk.FULL)
    return "disk" if told or not disk.has_room() else None


class Progress(Protocol):
    """How a converter tells how far it is."""

    def __call__(self, fraction: float, activity: str) -> None:
        """`fraction` of the stage in 0..1, `activity` in a few words ("calibrating, image 12 of 100")."""


Converter = Callable[[ConversionTask, Progress], Conversion]
