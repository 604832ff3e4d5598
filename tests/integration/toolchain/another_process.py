"""Has the digits' model converted in a process of its own: python another_process.py DIRECTORY MODEL IMAGES."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from integration.toolchain.workshop import Workshop

root, model, images = map(Path, sys.argv[1:])
for stage, conversion in zip(("onnx", "bie", "nef"), Workshop(root, "digits_cnn.onnx").all(model, images), strict=True):
    shutil.copyfile(conversion.artifact, root / stage)
