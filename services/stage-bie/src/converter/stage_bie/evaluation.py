"""How well a quantised model does what its float model did: per output, and per layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

from converter.toolchain import models
from converter.toolchain.accuracy import MOST_CHANNELS_NAMED, Agreement, Collapse, verdict
from converter.toolchain.sessions import Execution, is_precise, open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import onnx
    import onnxruntime as ort
    from numpy.typing import NDArray

    from converter.toolchain.samples import Sample

_MOST_LAYER_RUNS = 8
_MOST_LAYERS = 400
_CLASS_SCORES_RANK = 2

METHOD = (
    "The float and the quantised model run with ONNX Runtime on the CPU on the same samples, one at a time. "
    "SNR = 10 log10(sum x^2 / sum (x - y)^2), x float, y quantised, over all elements of all samples. "
    "kernels: default graph optimisation, with session.x64quantprecision=1 if kernels_precise. "
    "simulated: graph optimisation disabled. snr_db and verdict: the lowest simulated SNR of any output. "
    "top1_agreement: the part of the samples on which both models' largest score is the same class."
)


class _Output:
    """What is gathered of one output."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kernels, self.simulated, self.collapse = Agreement(), Agreement(), Collapse()
        self.shape_mismatches = 0

    def add(self, reference: NDArray[Any], kernels: NDArray[Any], simulated: NDArray[Any]) -> None:
        if not reference.shape == kernels.shape == simulated.shape:
            self.shape_mismatches += 1
            return
        self.kernels.add(reference, kernels)
        self.simulated.add(reference, simulated)
        self.collapse.add(reference, simulated)

    @property
    def snr_db(self) -> float:
        return -math.inf if self.shape_mismatches else self.simulated.snr_db

    def record(self) -> dict[str, Any]:
        channels = self.collapse.channels()
        return {
            "name": self.name,
            "kernels": self.kernels.figures(),
            "simulated": self.simulated.figures(),
            "shape_mismatches": self.shape_mismatches,
            "channels": self.collapse.count,
            "collapsed": self.collapse.entire,
            "collapsed_channels": channels[:MOST_CHANNELS_NAMED],
            "collapsed_channels_count": len(channels),
        }


class Evaluation:
    """Runs both models on sample after sample and gathers the figures.

    The quantised model runs twice: with integer kernels, as in production, and simulated, node by node as its graph is
    written, which gives the same on every CPU. The verdict is by the simulated run.
    """

    def __init__(self, float_model: Path, quantised_model: Path) -> None:
        self._sessions = [
            open_session(float_model),
            open_session(quantised_model),
            open_session(quantised_model, Execution.AS_WRITTEN),
        ]
        found = self._sessions[0].get_outputs()
        self._precise = is_precise(self._sessions[1])
        self._outputs = [_Output(output.name) for output in found]
        self._names: list[str] = []
        self._scores = len(found) == 1 and _is_class_scores(found[0])
        self._agreed = {"kernels": 0, "simulated": 0}

    def add(self, name: str, sample: Sample) -> list[NDArray[Any]]:
        """Compares one run on the sample `name`; returns the simulated outputs."""
        feeds = sample.feeds
        results = [session.run(None, feeds) for session in self._sessions]
        for output, reference, kernels, simulated in zip(self._outputs, *results, strict=True):
            output.add(reference, kernels, simulated)
        if self._scores:
            best, by_kernels, by_simulation = (int(np.argmax(result[0])) for result in results)
            self._agreed["kernels"] += best == by_kernels
            self._agreed["simulated"] += best == by_simulation
        self._names.append(name)
        return list(results[2])

    def finish(self) -> None:
        """Lets go of the models, which a figure does not need any more and which may be large."""
        self._sessions.clear()

    @property
    def snr_db(self) -> float:
        """The lowest simulated SNR of any output; infinite where all are exact."""
        return min(output.snr_db for output in self._outputs)

    @property
    def worst_output(self) -> str:
        """The name of the output with the lowest SNR."""
        return min(self._outputs, key=lambda output: output.snr_db).name

    def findings(self) -> list[str]:
        """A sentence for each output whose channels collapsed, whose values are not finite, or whose shape differs."""
        told = (output.collapse.sentence(output.name) for output in self._outputs)
        return [
            *(sentence for sentence in told if sentence),
            *(
                f"The output {output.name!r} has values that are not finite (NaN or infinite): {count} in all runs."
                for output in self._outputs
                if (count := output.simulated.non_finite)
            ),
            *(
                f"The output {output.name!r} has another shape than the float model's in {output.shape_mismatches} of "
                f"{len(self._names)} runs: it depends on the data, so judge what is computed before it."
                for output in self._outputs
                if output.shape_mismatches
            ),
        ]

    def record(self) -> dict[str, Any]:
        """As the report states it."""
        count = len(self._names)
        agreement = {how: round(agreed / count, 6) for how, agreed in self._agreed.items()}
        snr = self.snr_db
        return {
            "method": METHOD,
            "samples": self._names,
            "samples_count": count,
            "outputs": [output.record() for output in self._outputs],
            "kernels_precise": self._precise,
            "top1_agreement": agreement if self._scores else None,
            "snr_db": round(snr, 3) if math.isfinite(snr) else None,
            "verdict": verdict(snr),
        }


def _is_class_scores(output: ort.NodeArg) -> bool:
    return len(output.shape) == _CLASS_SCORES_RANK and output.shape[0] == 1 and "float" in output.type


def layers(
    float_model: onnx.ModelProto,
    quantised: onnx.ModelProto,
    scratch: Path,
    samples: Iterable[Sample],
    done: Callable[[int], None],
) -> list[dict[str, Any]]:
    """The agreement of every quantised tensor with the float model's, worst first, over the first few `samples`.

    Errors add up from layer to layer, so the first bad one is where to look.
    """
    dequantised = {node.output[0] for node in quantised.graph.node if node.op_type == "DequantizeLinear"}
    pairs = {
        name: (node, f"{name}_DequantizeLinear_Output")
        for node in float_model.graph.node
        for name in node.output
        if f"{name}_DequantizeLinear_Output" in dequantised
    }
    if not pairs:
        return []
    names, twins = list(pairs), [twin for _, twin in pairs.values()]
    originals = _exposed(float_model, scratch / "float_layers.onnx", names)
    counterparts = _exposed(quantised, scratch / "quantised_layers.onnx", twins)
    agreements = {name: Agreement() for name in names}
    for run, sample in enumerate(samples, start=1):
        _add_layers(agreements, originals.run(names, sample.feeds), counterparts.run(twins, sample.feeds))
        done(run)
        if run == _MOST_LAYER_RUNS:
            break
    ranked = sorted(agreements, key=lambda name: (agreements[name].snr_db, name))
    return [
        {"tensor": name, "node": pairs[name][0].name, "op": pairs[name][0].op_type, **agreements[name].figures()}
        for name in ranked[:_MOST_LAYERS]
    ]


def _add_layers(
    agreements: dict[str, Agreement], originals: list[NDArray[Any]], counterparts: list[NDArray[Any]]
) -> None:
    for agreement, original, counterpart in zip(agreements.values(), originals, counterparts, strict=True):
        if original.shape == counterpart.shape:
            agreement.add(original, counterpart)


def _exposed(model: onnx.ModelProto, path: Path, names: list[str]) -> ort.InferenceSession:
    """A session of `model` that also gives the tensors `names`."""
    exposed = type(model)()
    exposed.CopyFrom(model)
    present = {output.name for output in exposed.graph.output}
    exposed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in present)
    models.save(exposed, path)
    return open_session(path, Execution.AS_WRITTEN)
