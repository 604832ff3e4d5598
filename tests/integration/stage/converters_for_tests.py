"""Converters that do what a test needs; they run in the real subprocess."""

from __future__ import annotations

import errno
import os
import signal
import time

from converter.common.conversion import Conversion, ConversionRefused, ConversionTask, Progress
from converter.contracts.job import Toolchain


def copying(task: ConversionTask, progress: Progress) -> Conversion:
    """Hands on its first input."""
    progress(0.5, "copying")
    print("copying one input")
    artifact = task.workdir / "out.bin"
    artifact.write_bytes(next(iter(task.inputs.values())).read_bytes() + b"!")
    return Conversion(
        artifact=artifact,
        filename="out.bin",
        media_type="application/octet-stream",
        toolchain=Toolchain(name="copy", version="1"),
        report={"inputs": sorted(task.inputs)},
        warnings=("only copied",),
    )


def refusing(task: ConversionTask, progress: Progress) -> Conversion:
    raise ConversionRefused("model_unsupported", "Loop is not supported", node="loop_1", op="Loop")


def endless(task: ConversionTask, progress: Progress) -> Conversion:
    progress(0.1, "never ending")
    while True:
        time.sleep(0.05)


def without_room(task: ConversionTask, progress: Progress) -> Conversion:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(task.workdir / "half-done"))


def dying(task: ConversionTask, progress: Progress) -> Conversion:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError
