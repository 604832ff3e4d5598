"""Looks at a model's bytes before anything parses them: what it is, and whether it is safe to load.

Walks the protobuf wire format of an ONNX ModelProto while it arrives, without loading a tensor: milliseconds and no
memory for a model of 500 MB, where parsing costs a second and twice the file. Neither onnx nor numpy is imported, so
that the gateway can refuse a wrong file before it is queued.

ONNX has no magic number. A file passes only if it has known top-level fields, exactly one graph, an IR version and an
opset, and nothing in it that is known to blow up a checker or a runtime: functions (a file of 1.8 KB can expand without
end), subgraphs, sparse or external tensors, more fields than `Limits.fields`.

    ConversionRefused("model_invalid")        not an ONNX model, or a damaged one
    ConversionRefused("model_unsupported")    a model that these stages do not convert
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from converter.common.arriving import CutOff, Reading
from converter.common.conversion import ConversionRefused
from converter.common.skim.graph_walk import DEFAULT_DOMAIN, GraphWalk, Limits, Value, invalid, unsupported
from converter.common.skim.magic import HEAD_BYTES, looks_like
from converter.common.skim.wire import LENGTH_DELIMITED, UNKNOWN_END, VARINT, Damaged, Wire

__all__ = ["Limits", "ModelWalk", "Skimmed", "Value", "looks_like", "skim", "skim_bytes"]

LIMITS = Limits()
IR_VERSIONS = range(3, 15)
READ_BYTES = 256 << 10

_OTHER_FIELDS = dict.fromkeys((3, 4, 6, 14, 26), LENGTH_DELIMITED) | {5: VARINT}
"""Fields of ModelProto that say nothing here: producer, domain, version, documentation, properties, configuration."""


class Skimmed(Struct, frozen=True, kw_only=True):
    """What a model says of itself. `inputs` leaves out those that an initialiser feeds."""

    ir_version: int
    opset: int
    producer: str
    nodes: int
    parameters: int
    weight_bytes: int
    operators: dict[str, int]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def skim(path: Path, limits: Limits = LIMITS) -> Skimmed:
    """What the model at `path` says of itself.

    Raises:
        ConversionRefused: `model_invalid` or `model_unsupported`; the message says what the file is or has.
    """
    walk = ModelWalk(limits)
    with path.open("rb", buffering=0) as file:
        while piece := file.read(READ_BYTES):
            walk.feed(piece)
            # The end stays to be read: a file that is cut off within a tensor must not look whole.
            if (skipping := min(walk.skipping, path.stat().st_size - file.tell() - 1)) > 0:
                file.seek(skipping, 1)
                walk.skipped(skipping)
    return walk.finish()


def skim_bytes(content: bytes, limits: Limits = LIMITS) -> Skimmed:
    """As `skim`, of a model in memory."""
    walk = ModelWalk(limits)
    walk.feed(content)
    return walk.finish()


class ModelWalk:
    """One walk over a ModelProto, fed with consecutive pieces of any size.

    Args:
        limits: where a model is called too big to look at.
    """

    def __init__(self, limits: Limits = LIMITS) -> None:
        self._limits, self._wire = limits, Wire(limits.fields)
        self._graph = GraphWalk(self._wire, limits)
        self._graphs = self._ir_version = self._size_bytes = 0
        self._producer = ""
        self._opsets: dict[str, int] = {}
        self._head = b""
        self._reading = self._model()
        next(self._reading)

    @property
    def skipping(self) -> int:
        """How many of the next bytes do not matter; feeding that many costs nothing."""
        return self._wire.skipping

    def feed(self, piece: bytes) -> None:
        """Look at the next bytes.

        Raises:
            ConversionRefused: whatever follows, this is no model that these stages convert.
        """
        if len(self._head) < HEAD_BYTES:
            self._head += piece[: HEAD_BYTES - len(self._head)]
        self._count(len(piece))
        self._wire.supply(piece)
        self._go_on()

    def skipped(self, size_bytes: int) -> None:
        """As many of the next bytes, at most `skipping`, were not read."""
        self._count(size_bytes)
        self._wire.pass_by(size_bytes)

    def finish(self) -> Skimmed:
        """What the model says of itself; the file has ended.

        Raises:
            ConversionRefused: it is no whole model, or none that these stages convert.
        """
        if not self._size_bytes:
            invalid("the file is empty")
        self._wire.end()
        self._go_on()
        if not self._graphs:
            self._refuse_as_invalid("the file has no graph; it is not an ONNX model, or it is cut off")
        if self._ir_version not in IR_VERSIONS:
            invalid(f"the model's IR version is {self._ir_version}, known are {IR_VERSIONS[0]} to {IR_VERSIONS[-1]}")
        opset = next((self._opsets[domain] for domain in DEFAULT_DOMAIN if domain in self._opsets), None)
        if opset is None:
            invalid("the model does not say which opset it uses")
        return Skimmed(
            ir_version=self._ir_version,
            opset=opset,
            producer=self._producer,
            nodes=self._graph.nodes,
            parameters=self._graph.parameters,
            weight_bytes=self._graph.weight_bytes,
            operators=dict(sorted(self._graph.operators.items())),
            inputs=tuple(self._graph.inputs),
            outputs=tuple(self._graph.outputs),
        )

    def _count(self, size_bytes: int) -> None:
        self._size_bytes += size_bytes
        if self._size_bytes > self._limits.size_bytes:
            unsupported(f"the model has more than {self._limits.size_bytes} bytes; protobuf ends at 2 GiB")

    def _go_on(self) -> None:
        try:
            next(self._reading)
        except StopIteration:
            pass
        except (Damaged, CutOff) as damage:
            self._refuse_as_invalid(f"the file is not an ONNX model, or it is damaged: {damage}")
        except ConversionRefused as refused:
            if refused.code == "model_invalid":
                self._refuse_as_invalid(refused.message)
            raise

    def _refuse_as_invalid(self, message: str) -> None:
        kind = looks_like(self._head)
        invalid(f"the file is not an ONNX model, it looks like {kind}" if kind else message)

    def _model(self) -> Reading[None]:
        """Walks the whole file."""
        while (yield from self._wire.more()):
            number, kind, value, end = yield from self._wire.field(UNKNOWN_END)
            match number, kind:
                case (1, 0):
                    self._ir_version = value
                case (2, 2):
                    self._producer = yield from self._graph.text(end)
                case (7, 2):
                    self._graphs += 1
                    if self._graphs > 1:
                        invalid("the model has more than one graph")
                    yield from self._graph.graph(end)
                case (8, 2):
                    yield from self._opset(end)
                case (20, 2):
                    unsupported("the model carries training information; export it for inference")
                case (25, 2):
                    unsupported("the model has functions of its own; export it with them inlined")
                case _ if _OTHER_FIELDS.get(number) != kind:
                    invalid(f"the file is not an ONNX model: it has a field {number} of wire type {kind}")
            self._wire.skip_to(end)

    def _opset(self, end: int) -> Reading[None]:
        """OperatorSetIdProto."""
        domain, version = "", 0
        while self._wire.position < end:
            number, kind, value, stop = yield from self._wire.field(end)
            if (number, kind) == (1, LENGTH_DELIMITED):
                domain = yield from self._graph.text(stop)
            elif (number, kind) == (2, VARINT):
                version = value
            self._wire.skip_to(stop)
        if len(self._opsets) < self._limits.opsets or domain in self._opsets:
            self._opsets[domain] = version
