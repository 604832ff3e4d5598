"""The changes that the onnx stage makes to a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converter.toolchain import models
from converter.toolchain.sessions import Execution, open_session

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from converter.toolchain.steps import Steps


class Passes:
    """Records what each pass did to the number of nodes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._nodes = len(model.graph.node)
        self.records: list[dict[str, Any]] = []

    def record(self, name: str, model: onnx.ModelProto) -> None:
        """Notes that the pass `name` has made `model`."""
        before, self._nodes = self._nodes, len(model.graph.node)
        self.records.append(
            {"pass": name, "nodes_before": before, "nodes_after": self._nodes, "delta": self._nodes - before}
        )


def optimise(model: onnx.ModelProto, scratch: Path, steps: Steps) -> onnx.ModelProto:
    """`model` as ONNX Runtime simplifies it within standard ONNX: constants folded, idle nodes gone, norms fused."""
    before, after = scratch / "before.onnx", scratch / "after.onnx"
    models.save(model, before)
    open_session(before, Execution.FOLDED, save_rewritten=after)
    optimised = models.load(after)
    foreign = {node.domain for node in optimised.graph.node} - set(models.DEFAULT_DOMAIN)
    if foreign:
        steps.warn(f"Not optimised: the result would need operators of {', '.join(sorted(foreign))}.")
        return model
    return optimised
