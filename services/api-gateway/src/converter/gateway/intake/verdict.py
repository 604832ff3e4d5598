"""What a dry run answers: whether the model would be taken, and what it is."""

from __future__ import annotations

from msgspec import Struct

from converter.common import operators
from converter.common.conversion import ConversionRefused
from converter.common.skim import Skimmed, Value
from converter.contracts.failures import FAILURES
from converter.contracts.job import Model, Options
from converter.contracts.report.onnx import OperatorTable
from converter.gateway.intake.options import JobOrder
from converter.gateway.representation import OptionsResource, options_resource

_FOLDED = frozenset({"Constant", "ConstantOfShape", "Dropout", "Identity", "Shape", "Size"})
"""In a static model each of them is a constant or does nothing, so optimisation takes it out."""


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
    """`model`, `operators` and `options` are missing when the model cannot be read.

    `operators` judges the model as it was sent, but for the operators that never outlive the onnx stage.
    """

    valid: bool
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...] = ()
    model: ModelSummary | None = None
    operators: OperatorTable | None = None
    options: OptionsResource | None = None
    ref_images_count: int | None = None


def unusable(refused: ConversionRefused) -> Verdict:
    """The verdict on a model that is refused."""
    return Verdict(valid=False, problems=(_problem(refused),))


def verdict(order: JobOrder, model: Model, skimmed: Skimmed, ref_images_count: int) -> Verdict:
    """The verdict on a whole form."""
    problems = tuple(_problem(refused) for refused in _shape_problems(skimmed, order.options))
    return Verdict(
        valid=not problems,
        problems=problems,
        warnings=warnings(order, skimmed),
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
        operators=_judged(skimmed, order),
        options=options_resource(order.options),
        ref_images_count=ref_images_count,
    )


def warnings(order: JobOrder, skimmed: Skimmed | None) -> tuple[str, ...]:
    """What can be said before any work: of the fields, and of a model that has been looked into."""
    if skimmed is None:
        return order.warnings
    headline = _judged(skimmed, order).headline
    replaced = _replaced_sizes(skimmed, order.options)
    return (*order.warnings, *replaced, *((f"Before optimisation: {headline}",) if headline else ()))


def _judged(skimmed: Skimmed, order: JobOrder) -> OperatorTable:
    lasting = {op: count for op, count in skimmed.operators.items() if op not in _FOLDED}
    return operators.report(lasting, order.platform)


def _shape_problems(skimmed: Skimmed, options: Options) -> list[ConversionRefused]:
    """Inputs that stay dynamic: the first axis is the batch and becomes 1, every other needs a size."""
    names = [value.name for value in skimmed.inputs]
    given = _given_shapes(skimmed, options)
    wrong = [f"input_shape names {name!r}; the inputs are {', '.join(names)}" for name in given if name not in names]
    for value in skimmed.inputs:
        shape = given.get(value.name)
        if shape is None and (value.shape is None or not all(isinstance(dim, int) for dim in value.shape[1:])):
            wrong.append(f"the shape of the input {value.name!r} is dynamic")
        elif shape is not None and value.shape is not None and len(shape) != len(value.shape):
            wrong.append(f"the input {value.name!r} has {len(value.shape)} axes, input_shape gives {len(shape)}")
    return [ConversionRefused("input_shape_required", message) for message in wrong]


def _replaced_sizes(skimmed: Skimmed, options: Options) -> list[str]:
    """Sizes that the model has fixed and `input_shape` changes: allowed, but seldom what the model can compute with."""
    given = _given_shapes(skimmed, options)
    return [
        f"input_shape replaces the size {fixed} of axis {axis} of the input {value.name!r} by {size}."
        for value in skimmed.inputs
        if value.shape is not None
        for axis, (fixed, size) in enumerate(zip(value.shape, given.get(value.name, ()), strict=False))
        if axis and isinstance(fixed, int) and fixed != size
    ]


def _given_shapes(skimmed: Skimmed, options: Options) -> dict[str, tuple[int, ...]]:
    """`input_shape` by the inputs' names; the name of a single input may have been left out."""
    names = [value.name for value in skimmed.inputs]
    return {name or (names[0] if len(names) == 1 else ""): shape for name, shape in options.input_shape.items()}


def _problem(refused: ConversionRefused) -> Problem:
    return Problem(
        code=refused.code,
        message=refused.message,
        hint=refused.hint or FAILURES[refused.code].hint,
        node=refused.node,
        op=refused.op,
    )
