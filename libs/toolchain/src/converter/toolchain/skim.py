"""Looks at a model's bytes before anything parses them: what it is, and whether it is safe to load.

Walks the protobuf wire format of an ONNX ModelProto without loading a tensor: milliseconds and no memory for a model of
500 MB, where parsing costs a second and twice the file. Neither onnx nor numpy is imported, so that the gateway can
refuse a wrong file before it is queued.

ONNX has no magic number. A file passes only if it has known top-level fields, exactly one graph, an IR version and an
opset, and nothing in it that is known to blow up a checker or a runtime: functions (a file of 1.8 KB can expand without
end), subgraphs, sparse or external tensors, more fields than `Limits.fields`.

    ConversionRefused("model_invalid")        not an ONNX model, or a damaged one
    ConversionRefused("model_unsupported")    a model that these stages do not convert
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

from msgspec import Struct

from converter.toolchain.graph_walk import DEFAULT_DOMAIN, GraphWalk, Limits, Value, invalid, unsupported
from converter.toolchain.wire import LENGTH_DELIMITED, VARINT, Damaged, Reader

if TYPE_CHECKING:
    from pathlib import Path

LIMITS = Limits()
IR_VERSIONS = range(3, 15)

_OTHER_FIELDS = frozenset({3, 4, 5, 6, 14, 26})
_FOREIGN = (
    (0, b"PK\x03\x04", "a ZIP archive (as PyTorch checkpoints are)"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x7fELF", "an ELF program"),
    (0, b"\x80\x02", "a Python pickle (as older PyTorch checkpoints are)"),
    (0, b"\x80\x04", "a Python pickle"),
    (0, b"\x80\x05", "a Python pickle"),
    (0, b"\x89HDF", "an HDF5 file (as Keras models are)"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"<", "an XML or HTML text"),
    (0, b"{", "a JSON text"),
    (0, b"version https://git-lfs", "a Git LFS pointer: the model itself was not checked out"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (4, b"ORTM", "a model in ONNX Runtime's own format: send the .onnx that it was made from"),
    (8, b'{"', "a safetensors file"),
)
_LONGEST_MAGIC = 64


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
    size = path.stat().st_size
    if size == 0:
        invalid("the file is empty")
    if size > limits.size_bytes:
        unsupported(f"the model has {size} bytes; protobuf ends at 2 GiB")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return skim_bytes(content, limits)


def skim_bytes(content: bytes | mmap.mmap, limits: Limits = LIMITS) -> Skimmed:
    """As `skim`, of a model in memory or in a memory map."""
    head = bytes(content[:_LONGEST_MAGIC])
    for offset, magic, what in _FOREIGN:
        if head[offset:].startswith(magic):
            invalid(f"the file is not an ONNX model, it looks like {what}")
    try:
        return _Walk(Reader(content, limits.fields), limits).model()
    except Damaged as damage:
        invalid(f"the file is not an ONNX model, or it is damaged: {damage}")


class _Walk:
    """One walk over a ModelProto."""

    def __init__(self, reader: Reader, limits: Limits) -> None:
        self._reader, self._graph = reader, GraphWalk(reader, limits)
        self._graphs = self._ir_version = 0
        self._producer = ""
        self._opsets: dict[str, int] = {}

    def model(self) -> Skimmed:
        """Walks the whole file."""
        for number, kind, value, end in self._reader.fields(0, len(self._reader.content)):
            self._field(number, kind, value, end)
        if not self._graphs:
            invalid("the file has no graph; it is not an ONNX model, or it is cut off")
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

    def _field(self, number: int, kind: int, value: int, end: int) -> None:
        """One field of the ModelProto."""
        match number, kind:
            case (1, 0):
                self._ir_version = value
            case (2, 2):
                self._producer = self._graph.text(value, end)
            case (7, 2):
                self._graphs += 1
                if self._graphs > 1:
                    invalid("the model has more than one graph")
                self._graph.graph(value, end)
            case (8, 2):
                self._opset(value, end)
            case (20, 2):
                unsupported("the model carries training information; export it for inference")
            case (25, 2):
                unsupported("the model has functions of its own; export it with them inlined")
            case _ if number not in _OTHER_FIELDS:
                invalid(f"the file is not an ONNX model: it has a field {number} of wire type {kind}")

    def _opset(self, start: int, end: int) -> None:
        """OperatorSetIdProto."""
        domain, version = "", 0
        for number, kind, value, stop in self._reader.fields(start, end):
            if (number, kind) == (1, LENGTH_DELIMITED):
                domain = self._graph.text(value, stop)
            elif (number, kind) == (2, VARINT):
                version = value
        self._opsets[domain] = version
