"""Which tensors get 16 bits in a mixed step: those that add most of the noise, within a share of the model's work."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from converter.toolchain import models

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx


class Weights(NamedTuple):
    """The weights of a node, and which of their axes is the node's output channels."""

    name: str
    axis: int


class Lifted(NamedTuple):
    """The tensors that get 16 bits: results of nodes by name, and the weights of the nodes that compute them."""

    activations: frozenset[str] = frozenset()
    weights: frozenset[Weights] = frozenset()

    def record(self) -> dict[str, list[str]]:
        """As the report states it."""
        return {"activations": sorted(self.activations), "weights": sorted(weights.name for weights in self.weights)}


NOTHING = Lifted()
_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
"""Of the second input. A Gemm with transB has it first."""


def choose(model: onnx.ModelProto, layers: Sequence[Mapping[str, Any]], share: float) -> Lifted:
    """The tensors of `layers` (measured on the 8-bit model) that add most noise.

    Errors add up on their way through a model, so not the noisiest tensors count but those that are much noisier than
    what they are computed from. The chosen cost at most `share` of the multiply-accumulate operations, and are at most
    this share of the tensors, but always one.
    """
    graph = _Graph(model)
    noise = {layer["tensor"]: _noise(layer) for layer in layers}
    added = {
        tensor: noise[tensor] - max((noise[source] for source in graph.measured_sources(tensor, noise)), default=0.0)
        for tensor in noise
    }
    ranked = sorted((tensor for tensor in added if noise[tensor] > 0), key=lambda tensor: (-added[tensor], tensor))
    costs = {name: macs or 0 for name, macs in models.macs_by_node(model).items()}
    left, count = share * sum(costs.values()), max(1, round(share * len(noise)))
    activations: set[str] = set()
    weights: set[Weights] = set()
    for tensor in ranked:
        if len(activations) == count:
            break
        worker = graph.worker(tensor)
        cost = costs.get(worker.name, 0) if worker else 0
        if cost > left and activations:
            continue
        left -= cost
        activations.add(tensor)
        weights.update(graph.weights(worker))
    return Lifted(frozenset(activations), frozenset(weights))


def _noise(layer: Mapping[str, Any]) -> float:
    """Noise over signal, as a power ratio; where a tensor is only noise or only zero there is no figure."""
    if layer["exact"] or layer["snr_db"] is None:
        return 0.0
    return math.pow(10, -float(layer["snr_db"]) / 10)


class _Graph:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._producers = {name: node for node in model.graph.node for name in node.output if name}
        self._initialisers = {name for name, _ in models.float_weights(model)}

    def worker(self, tensor: str) -> onnx.NodeProto | None:
        """The node with weights that computes `tensor`, through an activation function that the quantiser fuses."""
        node: onnx.NodeProto | None = self._producers.get(tensor)
        if node is not None and node.op_type in {"Relu", "Clip"}:
            before: onnx.NodeProto | None = self._producers.get(node.input[0])
            return before if before is not None and self.weights(before) else node
        return node

    def weights(self, node: onnx.NodeProto | None) -> tuple[Weights, ...]:
        """The weights of `node`, its bias left out: that is kept in 32 bits anyway."""
        if node is None or node.op_type not in _CHANNEL_AXIS or node.input[1] not in self._initialisers:
            return ()
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        return (Weights(node.input[1], 0 if transposed else _CHANNEL_AXIS[node.op_type]),)

    def measured_sources(self, tensor: str, measured: Mapping[str, float]) -> set[str]:
        """The nearest measured tensors that `tensor` is computed from."""
        found: set[str] = set()
        seen = {tensor}
        waiting = [tensor]
        while waiting:
            node = self._producers.get(waiting.pop())
            for name in () if node is None else node.input:
                if name in measured:
                    found.add(name)
                elif name not in seen:
                    seen.add(name)
                    waiting.append(name)
        return found
