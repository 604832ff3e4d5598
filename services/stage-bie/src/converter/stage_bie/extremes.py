"""The smallest and largest value of every tensor of a model, over any number of runs.

ONNX Runtime's own calibrator of this kind takes time with the square of the number of tensors, for each sample: four
fifths of a calibration of 500 tensors. The ranges are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

from converter.toolchain import models
from converter.toolchain.sessions import Execution, open_session

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from converter.toolchain.samples import Feeds

_PREFIX = "converter_extreme_"


class Extremes:
    """Runs `model`, which it changes, and keeps the bounds of its `tensors`."""

    def __init__(self, model: onnx.ModelProto, scratch: Path, tensors: Collection[str]) -> None:
        self._tensors = sorted(tensors)
        self._outputs = [f"{_PREFIX}{op}_{index}" for op in ("min", "max") for index in range(len(self._tensors))]
        observed = scratch / "observed.onnx"
        models.save(self._observed(model), observed)
        self._session = open_session(observed, Execution.AS_WRITTEN)
        self._low: NDArray[np.float32] | None = None
        self._high: NDArray[np.float32] | None = None

    def add(self, feeds: Feeds) -> None:
        """Takes one run in."""
        found = np.array(self._session.run(self._outputs, feeds) if self._outputs else [], np.float32)
        low, high = np.split(found, 2)
        self._low = low if self._low is None else np.minimum(self._low, low)
        self._high = high if self._high is None else np.maximum(self._high, high)

    def bounds(self) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        """Smallest and largest value by tensor, each of shape [1].

        Raises:
            ValueError: nothing was run.
        """
        if self._low is None or self._high is None:
            raise ValueError("there is no range without a run")
        empty = self._low > self._high  # no run had a value: the smallest of none is infinite
        low, high = (np.where(empty, np.float32(0), found) for found in (self._low, self._high))
        return {
            name: (low.reshape(1), high.reshape(1)) for name, low, high in zip(self._tensors, low, high, strict=True)
        }

    def _observed(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """`model` with two more outputs for each tensor, computed as soon as it is there: it need not be kept."""
        numbers = {name: index for index, name in enumerate(self._tensors)}
        nodes = [
            reduction
            for value in model.graph.input
            if value.name in numbers
            for reduction in _reductions(value.name, numbers[value.name])
        ]
        for node in model.graph.node:
            nodes.append(node)
            for name in node.output:
                if name in numbers:
                    nodes += _reductions(name, numbers[name])
        kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(kept)
        model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in self._outputs)
        return model


def _reductions(name: str, number: int) -> list[onnx.NodeProto]:
    return [
        helper.make_node(f"Reduce{op.capitalize()}", [name], [f"{_PREFIX}{op}_{number}"], keepdims=0)
        for op in ("min", "max")
    ]
