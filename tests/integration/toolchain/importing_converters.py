"""The reference toolchain's converters, which also tell what modules were imported while they converted."""

from __future__ import annotations

import sys
from collections.abc import Callable

from converter.common.conversion import Conversion, ConversionTask, Progress
from converter.stage_bie import reference as bie
from converter.stage_nef import reference as nef
from converter.stage_onnx import reference as onnx


def telling(convert: Callable[[ConversionTask, Progress], Conversion]) -> Callable[..., Conversion]:
    def converts(task: ConversionTask, progress: Progress) -> Conversion:
        before = set(sys.modules)
        conversion = convert(task, progress)
        progress(1.0, "imported " + " ".join(sorted(set(sys.modules) - before)))
        return conversion

    return converts


onnx_stage, bie_stage, nef_stage = map(telling, (onnx.convert, bie.convert, nef.convert))
