"""What the stage `onnx` reports: the model, what was rewritten, and which operators the chip computes."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from converter.contracts.job import Platform
from converter.contracts.report.stage import FileFacts, StageReport


class TensorFacts(Struct, frozen=True, kw_only=True):
    """An input or output: `dtype` as numpy names it; a dimension is a number, a name, or null where nothing is said."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


class ModelFacts(FileFacts, frozen=True, kw_only=True):
    """An ONNX model.

    `parameters` counts the elements of all initialisers, `macs` the multiply-accumulate operations of Conv,
    ConvTranspose, Gemm and MatMul for one run: null where a dimension that they depend on is not known.
    """

    ir_version: int
    opset: int
    producer: str
    nodes: int
    operators: dict[str, int]
    parameters: int
    weight_bytes: int
    macs: int | None
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]


class OperatorVerdict(Struct, frozen=True, kw_only=True):
    """What becomes of the `count` nodes of the operator `op` on the chip, and why that is said.

    `npu-conditional`: only where the nodes meet `reason`, which is not checked. `cpu-or-rewritten`: a node may yet be
    folded, fused or put into other operators by the compiler. `unknown`: the vendor's table does not list it.
    """

    op: str
    count: int
    verdict: Literal["npu", "npu-conditional", "cpu-or-rewritten", "unknown"]
    reason: str


class OperatorTable(Struct, frozen=True, kw_only=True):
    """Which operators the chip's NPU computes, those that it does not first. `headline` is null where it may do all."""

    platform: Platform
    headline: str | None
    operators: tuple[OperatorVerdict, ...]
    source: dict[str, str]


class OpsetConversion(Struct, frozen=True, kw_only=True):
    """`relabelled`: the same nodes were declared as of the new opset, which check and comparison then allowed."""

    source: int
    target: int
    method: Literal["kept", "converted", "relabelled"]
    failed_attempts: tuple[str, ...] = ()


class Pass(Struct, frozen=True, kw_only=True, rename={"name": "pass"}):
    """What one rewrite did to the number of nodes."""

    name: str
    nodes_before: int
    nodes_after: int
    delta: int


class Difference(Struct, frozen=True, kw_only=True):
    """The largest difference between two models' outputs: absolute, and relative to the output's largest value."""

    max_abs: float
    max_rel: float


class Parity(Difference, frozen=True, kw_only=True):
    """How far the rewritten model is from its source; it fails past both `limits`."""

    method: str
    runs: int
    limits: Difference


class OnnxReport(StageReport, frozen=True, kw_only=True):
    """The stage `onnx`: the model as it was sent, and what it became."""

    source: ModelFacts
    result: ModelFacts
    operators: OperatorTable
    opset_conversion: OpsetConversion | None = None
    passes: tuple[Pass, ...] = ()
    parity: Parity | None = None
