"""The onnx stage of the vendor's toolchain: refuses what it cannot take, then has the model optimised."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import onnx
from msgspec import to_builtins

from converter.common import operators
from converter.common.conversion import Conversion, ConversionRefused, ConversionTask, Progress
from converter.common.skim import skim
from converter.kneron import limits
from converter.kneron.session import Session
from converter.toolchain import half, models, preparing
from converter.toolchain.reference import ONNX_MEDIA_TYPE, artifact_name
from converter.toolchain.reporting import file_record
from converter.toolchain.steps import Steps

_SOURCE, _OPTIMISED = "model.onnx", "optimised.onnx"


def convert(task: ConversionTask, progress: Progress) -> Conversion:
    """Makes `<model>.onnx`: static, of batch 1, optimised for the chips.

    Raises:
        ConversionRefused: `model_invalid`, `model_unsupported`, `input_shape_required`, `opset_unsupported`,
            `ir_version_unsupported`, or what the toolchain failed with.
        MemoryError: the toolchain was killed for want of memory.
    """
    session = Session(task, progress)
    steps = session.steps
    source = task.inputs["model"]
    model, found = _checked_source(source, task.options.input_shape, steps)
    with steps.step("shapes", at=0.15, code="input_shape_required", activity="fixing the input shapes"):
        half.widen(model, steps)
        preparing.fix_shapes(model, task.options.input_shape)
        model = models.infer_shapes(model)
        limits.check_static(model)
        steps.say(", ".join(f"{spec.name} {list(spec.dims)}" for spec in models.inputs(model)))
        models.save(model, session.directory / _SOURCE)
    session.ask("optimise", at=0.2, until=0.85, model=_SOURCE, optimised=_OPTIMISED)
    target = task.workdir / artifact_name(task.filename, ".onnx")
    with steps.step("check", at=0.85, code="artifact_invalid", activity="checking the result"):
        result = _checked_result(session.made(_OPTIMISED), models.inputs(model), target, steps)
        steps.say(f"{found['nodes']} nodes became {result['nodes']}")
    table = operators.report(result["operators"], task.platform)
    if table.headline:
        steps.warn(table.headline)
    report = {
        "stage": "onnx",
        "source": {**file_record(source), **found},
        "result": {**file_record(target), **result},
        "operators": to_builtins(table),
    }
    return session.conversion(target, ONNX_MEDIA_TYPE, report)


def _checked_source(
    source: Path, wanted: dict[str, tuple[int, ...]], steps: Steps
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The client's model, ready to be made static, and what it is in figures."""
    with steps.step("skim", at=0.0, code="model_invalid", activity="looking at the model's bytes"):
        seen = skim(source)
        steps.say(f"IR {seen.ir_version}, opset {seen.opset}, {seen.nodes} nodes, {seen.parameters} parameters")
    with steps.step("check_source", at=0.05, code="model_invalid", activity="checking the model"):
        model = models.load(source)
        preparing.tidy(model)
        limits.check_source(model)
        preparing.check_inputs(model, wanted)
        preparing.check_inference(model)
        if limits.lower_ir_version(model):
            steps.say(f"IR {seen.ir_version} relabelled to {limits.MOST_IR_VERSION}")
        model = models.infer_shapes(model)
        models.check(model)
        found = {**models.summary(model), "ir_version": seen.ir_version}
    return model, found


def _checked_result(
    optimised: Path, inputs: tuple[models.TensorSpec, ...], target: Path, steps: Steps
) -> dict[str, Any]:
    """Copies the optimised model to `target`, if it still takes `inputs`; returns what it is in figures.

    Raises:
        ConversionRefused: `artifact_invalid`.
    """
    model = models.load(optimised)
    if models.inputs(model) != inputs:
        found = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in models.inputs(model))
        raise ConversionRefused("artifact_invalid", f"the optimised model takes other inputs: {found or 'none'}")
    if limits.lower_ir_version(model):
        models.save(model, target)
    else:
        shutil.copyfile(optimised, target)
    try:
        model = models.infer_shapes(model)
        models.check(model)
    except Exception as error:  # noqa: BLE001 - onnx's many classes; the vendor may use operators that it does not know
        first_line = str(error).strip().partition("\n")[0]
        steps.warn(f"The optimised model is not plain ONNX: {first_line[:200]}")
    limits.warn_of_rank(model, steps)
    return models.summary(model)
