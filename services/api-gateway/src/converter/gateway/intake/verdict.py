"""What a dry run answers: whether the model would be taken, and what it is."""

from __future__ import annotations

from msgspec import Struct

from converter.common.conversion import ConversionRefused
from converter.common.skim import Skimmed, Value
from converter.contracts.failures import FAILURES
from converter.contracts.job import Model, Options
from converter.gateway.intake.options import JobOrder
from converter.gateway.representation import OptionsResource, options_resource


class ModelSummary(Struct, frozen=True, kw_only=True):
    """What the model says of itself. In shapes a dimension is a number, a name, or null where nothing is said."""

    filename: str
    size_bytes: int
    sha256: str
    ir_version: int
    opset: int
    producer: str
    nodes: int
    parameters: int
    operators: dict[str, int]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


class Problem(Struct, frozen=True, kw_only=True):
    """Why the job would fail; `code` is the one that it would fail with."""

    code: str
    message: str
    hint: str
    node: str | None = None
    op: str | None = None


class Verdict(Struct, frozen=True, kw_only=True):
    """`model` and `options` are missing when the model cannot be read."""

    valid: bool
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...] = ()
    model: ModelSummary | None = None
    options: OptionsResource | None = None
    ref_images_count: int | None = None


def unusable(refused: ConversionRefused) -> Verdict:
    """That on a model which is refused."""
    return Verdict(valid=False, problems=(_problem(refused),))


def verdict(order: JobOrder, model: Model, skimmed: Skimmed, ref_images_count: int) -> Verdict:
    """That on a whole form."""
    problems = tuple(_problem(refused) for refused in _shape_problems(skimmed, order.options))
    return Verdict(
        valid=not problems,
        problems=problems,
        warnings=order.warnings,
        model=ModelSummary(
            filename=model.filename,
            size_bytes=model.size_bytes,
            sha256=model.sha256,
            ir_version=skimmed.ir_version,
            opset=skimmed.opset,
            producer=skimmed.producer,
            nodes=skimmed.nodes,
            parameters=skimmed.parameters,
            operators=skimmed.operators,
            inputs=skimmed.inputs,
            outputs=skimmed.outputs,
        ),
        options=options_resource(order.options),
        ref_images_count=ref_images_count,
    )


def _shape_problems(skimmed: Skimmed, options: Options) -> list[ConversionRefused]:
    """Inputs that stay dynamic: the first axis is the batch and becomes 1, every other needs a size."""
    names = [value.name for value in skimmed.inputs]
    given = {name or (names[0] if len(names) == 1 else ""): shape for name, shape in options.input_shape.items()}
    wrong = [f"input_shape names {name!r}; the inputs are {', '.join(names)}" for name in given if name not in names]
    for value in skimmed.inputs:
        shape = given.get(value.name)
        if shape is None and (value.shape is None or not all(isinstance(dim, int) for dim in value.shape[1:])):
            wrong.append(f"the shape of the input {value.name!r} is dynamic")
        elif shape is not None and value.shape is not None and len(shape) != len(value.shape):
            wrong.append(f"the input {value.name!r} has {len(value.shape)} axes, input_shape gives {len(shape)}")
    return [ConversionRefused("input_shape_required", message) for message in wrong]


def _problem(refused: ConversionRefused) -> Problem:
    return Problem(
        code=refused.code,
        message=refused.message,
        hint=refused.hint or FAILURES[refused.code].hint,
        node=refused.node,
        op=refused.op,
    )
