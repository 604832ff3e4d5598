"""Brings a model to an opset that can be quantised channel by channel and that the vendor's toolchain takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from onnx import version_converter

from converter.common.conversion import ConversionRefused
from converter.toolchain import models

if TYPE_CHECKING:
    import onnx

KEPT = range(13, 19)
"""Quantisation by channel needs 13 (DequantizeLinear's axis), the vendor's toolchain takes 8 to 18."""
_UPGRADES, _DOWNGRADES = (17, 13), (18, 17)


class _Failed(NamedTuple):
    target: int
    why: str


def convert(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """`model` at an opset in `KEPT`, and what was done: {source, target, method, evidence}.

    The method is `kept`, `converted` (by onnx's version converter), or `relabelled`: the converter lacks an adapter for
    some operator, so the same nodes are declared as of the new opset. The caller's check and comparison with the source
    decide whether they still mean the same.

    Raises:
        ConversionRefused: `opset_unsupported`: none of this gives a valid model.
    """
    source = models.opset(model)
    if source in KEPT:
        return model, _record(source, source, "kept")
    failures: list[_Failed] = []
    targets = _UPGRADES if source < KEPT[0] else _DOWNGRADES
    for attempt, method in ((_converted, "converted"), (_relabelled, "relabelled")):
        for target in targets:
            try:
                return attempt(model, target), _record(source, target, method, failures)
            except Exception as error:  # noqa: BLE001 - the converter and the checker raise many classes
                failures.append(_Failed(target, (str(error).splitlines() or [type(error).__name__])[0][:200]))
    raise ConversionRefused(
        "opset_unsupported",
        f"the model uses opset {source} and cannot be brought to one from {KEPT[0]} to {KEPT[-1]}",
        evidence=failures[0].why,
    )


def _record(source: int, target: int, method: str, failures: list[_Failed] | None = None) -> dict[str, Any]:
    return {
        "source": source,
        "target": target,
        "method": method,
        "failed_attempts": [f"opset {failed.target}: {failed.why}" for failed in failures or ()],
    }


def _converted(model: onnx.ModelProto, target: int) -> onnx.ModelProto:
    converted = models.infer_shapes(version_converter.convert_version(model, target))
    models.check(converted)
    return converted


def _relabelled(model: onnx.ModelProto, target: int) -> onnx.ModelProto:
    relabelled = type(model)()
    relabelled.CopyFrom(model)
    models.set_opset(relabelled, target)
    relabelled = models.infer_shapes(relabelled)
    models.check(relabelled)
    return relabelled
