"""The onnx stage of the reference toolchain: checks a model, makes it static, and simplifies it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from msgspec import to_builtins

from converter.common import operators
from converter.common.conversion import Conversion
from converter.common.skim import skim
from converter.stage_onnx import opsets, parity, rewriting, wiring
from converter.toolchain import half, models, preparing, reference
from converter.toolchain.reporting import file_record
from converter.toolchain.steps import Steps

if TYPE_CHECKING:
    import onnx

    from converter.common.conversion import ConversionTask, Progress

_PRODUCER = "kneron-model-converter"
_IR_VERSION = 8
"""The one that belongs to the opsets up to 18; the vendor's runtime refuses those above 9."""


def convert(task: ConversionTask, progress: Progress) -> Conversion:
    """Makes `<model>.onnx`: static, of an opset that can be quantised, and without nodes that can be computed before.

    Raises:
        ConversionRefused: `model_invalid`, `model_unsupported`, `input_shape_required`, `opset_unsupported`,
            `optimisation_diverged`, or `conversion_failed`.
    """
    steps = Steps(progress)
    source = task.inputs["model"]
    target = task.workdir / reference.artifact_name(task.filename, ".onnx")
    with TemporaryDirectory(dir=task.workdir) as scratch:
        report = _rewrite(task, steps, source, target, Path(scratch))
    progress(1.0, "done")
    return Conversion(
        artifact=target,
        filename=target.name,
        media_type=reference.ONNX_MEDIA_TYPE,
        toolchain=reference.toolchain(),
        report={**report, "warnings": list(steps.warnings), "timings": steps.timings()},
        warnings=tuple(steps.warnings),
    )


def _rewrite(task: ConversionTask, steps: Steps, source: Path, target: Path, scratch: Path) -> dict[str, Any]:
    """Writes the artifact to `target`; returns the report but for its timings."""
    model, found = _checked_source(source, task.options.input_shape, steps)
    passes = rewriting.Passes(model)
    with steps.step("widen", at=0.2, code="model_unsupported", activity="converting half precision"):
        if half.widen(model, steps):
            passes.record("float16_to_float32", model)
    with steps.step("shapes", at=0.25, code="input_shape_required", activity="fixing the input shapes"):
        preparing.fix_shapes(model, task.options.input_shape)
        model = models.infer_shapes(model)
        passes.record("fix_shapes", model)
        steps.say(", ".join(f"{spec.name} {list(spec.dims)}" for spec in models.inputs(model)))
    with steps.step("run", at=0.3, code=_cannot_run(task), activity="running the model"):
        static = scratch / "static.onnx"
        models.save(model, static)
        before = parity.Reference(static, models.inputs(model))
    with steps.step("opset", at=0.35, code="opset_unsupported", activity="converting the opset"):
        model, conversion = opsets.convert(model)
        passes.record("convert_opset", model)
        steps.say(f"{conversion['source']} to {conversion['target']} by {conversion['method']}")
    with steps.step("optimise", at=0.5, code="model_unsupported", activity="optimising"):
        model = rewriting.optimise(model, scratch, steps)
        passes.record("optimise", model)
        steps.say(f"{found['nodes']} nodes became {len(model.graph.node)}")
    with steps.step("check", at=0.7, code="conversion_failed", activity="checking the result"):
        model = _finished(model)
        models.check(model)
        models.save(model, target)
    with steps.step("parity", at=0.8, code="optimisation_diverged", activity="comparing with the source"):
        agreement = before.compare(target)
        steps.say(f"largest difference {agreement['max_abs']}")
    result = models.summary(model)
    table = operators.report(result["operators"], task.platform)
    if table.headline:
        steps.warn(table.headline)
    return {
        "stage": "onnx",
        "notice": reference.NOTICE,
        "toolchain": reference.description(),
        "source": {**file_record(source), **found},
        "result": {**file_record(target), **result},
        "operators": to_builtins(table),
        "opset_conversion": conversion,
        "passes": passes.records,
        "parity": agreement,
    }


def _cannot_run(task: ConversionTask) -> str:
    """The code for a model that passes every check and cannot be run: its own fault, or that of the client's shapes."""
    return "input_shape_required" if task.options.input_shape else "model_invalid"


def _checked_source(
    source: Path, wanted: dict[str, tuple[int, ...]], steps: Steps
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The client's model, and what it is in figures."""
    with steps.step("skim", at=0.0, code="model_invalid", activity="looking at the model's bytes"):
        seen = skim(source)
        steps.say(f"IR {seen.ir_version}, opset {seen.opset}, {seen.nodes} nodes, {seen.parameters} parameters")
    with steps.step("load", at=0.05, code="model_invalid", activity="loading the model"):
        model = models.load(source)
    with steps.step("check_source", at=0.1, code="model_invalid", activity="checking the model"):
        # All this before onnx's check, which is stricter than most exporters: it refuses files of IR 3 whose
        # initialisers are not inputs too, and outputs without a shape. The runtime refuses two nodes of one name.
        preparing.tidy(model)
        wiring.check(model)
        preparing.check_inputs(model, wanted)
        preparing.check_inference(model)
        model = models.infer_shapes(model)
        models.check(model)
        preparing.check_weights(model, steps)
        found = {**models.summary(model), "ir_version": seen.ir_version}
    return model, found


def _finished(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with every shape that can be told, names for all nodes, and nothing that differs between two runs."""
    models.set_opset(model, models.opset(model))
    model = models.infer_shapes(model)
    models.name_nodes(model)
    model.ir_version = _IR_VERSION
    model.producer_name, model.producer_version = _PRODUCER, reference.version()
    del model.metadata_props[:]
    return model
