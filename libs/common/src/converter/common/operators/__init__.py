"""Which operators of a model a chip's NPU computes, by the vendor's own table (`kneron.toml`, which names its source).

Needs nothing but the counts that `skim` gives, so it serves before a job is queued as well as in a report. Neither onnx
nor numpy is imported.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

from msgspec import Struct

from converter.contracts.job import Platform
from converter.contracts.report.onnx import OperatorTable, OperatorVerdict

_TABLE = "kneron.toml"
_BY_WEIGHT = ("cpu-or-rewritten", "unknown", "npu-conditional", "npu")
_MOST_NAMED = 12


class _Table(Struct, frozen=True):
    source: dict[str, str]
    columns: dict[str, list[str]]
    operators: dict[str, str]
    conditions: dict[str, str]


def verdicts(operators: Mapping[str, int], platform: Platform) -> tuple[OperatorVerdict, ...]:
    """One verdict for each of `operators` (how often each occurs), those that the NPU does not compute first."""
    found = [_verdict(op, count, platform) for op, count in operators.items()]
    return tuple(sorted(found, key=lambda each: (_BY_WEIGHT.index(each.verdict), each.op)))


def _verdict(op: str, count: int, platform: Platform) -> OperatorVerdict:
    table = _table()
    if op not in table.operators:
        return OperatorVerdict(op=op, count=count, verdict="unknown", reason="not in the vendor's table")
    cell = table.operators[op].split()[table.columns["platforms"].index(platform)]
    remark = table.conditions[cell[1:]] if len(cell) > 1 else ""
    if cell.startswith("N"):
        return OperatorVerdict(
            op=op, count=count, verdict="cpu-or-rewritten", reason=remark or f"not on the NPU of the {platform}"
        )
    if remark:
        return OperatorVerdict(op=op, count=count, verdict="npu-conditional", reason=remark)
    return OperatorVerdict(op=op, count=count, verdict="npu", reason=f"on the NPU of the {platform}")


def headline(found: Sequence[OperatorVerdict], platform: Platform) -> str | None:
    """What does not run on the NPU, in a sentence; none where all does, or may."""
    fallbacks = [each for each in found if each.verdict == "cpu-or-rewritten"]
    if not fallbacks:
        return None
    named = ", ".join(f"{each.op} ({each.count})" for each in fallbacks[:_MOST_NAMED])
    more = f" and {len(fallbacks) - _MOST_NAMED} more" if len(fallbacks) > _MOST_NAMED else ""
    return (
        f"{sum(each.count for each in fallbacks)} of {sum(each.count for each in found)} nodes have operators that the "
        f"NPU of the {platform} does not compute: {named}{more}. They run on the CPU unless the compiler rewrites them."
    )


def report(operators: Mapping[str, int], platform: Platform) -> OperatorTable:
    """The operator table as reports and answers state it: headline, source, and one row for each operator."""
    found = verdicts(operators, platform)
    return OperatorTable(
        platform=platform, headline=headline(found, platform), operators=found, source=dict(_table().source)
    )


@cache
def _table() -> _Table:
    text = resources.files(__package__).joinpath(_TABLE).read_text("utf-8")
    return _Table(**tomllib.loads(text))
