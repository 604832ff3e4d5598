"""The part of `skim` that walks a graph: counts, names, and what cannot be converted; field numbers of onnx.proto."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, NoReturn

from msgspec import Struct

from converter.common.conversion import ConversionRefused
from converter.toolchain.wire import LENGTH_DELIMITED, VARINT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converter.toolchain.wire import Reader

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
QUANTISED = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
    }
)
DEFAULT_DOMAIN = ("", "ai.onnx")

_BITS = {
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),  # UINT8, INT8, BOOL, FLOAT8*
    **dict.fromkeys((4, 5, 10, 16), 16),  # UINT16, INT16, FLOAT16, BFLOAT16
    **dict.fromkeys((1, 6, 12), 32),  # FLOAT, INT32, UINT32
    **dict.fromkeys((7, 11, 13, 14), 64),  # INT64, DOUBLE, UINT64, COMPLEX64
    15: 128,  # COMPLEX128
    **dict.fromkeys((21, 22, 23), 4),  # UINT4, INT4, FLOAT4E2M1
    **dict.fromkeys((25, 26), 2),  # UINT2, INT2
}
_STRING = 8
_MOST_ELEMENTS_IN_A_BYTE = 4

# TensorProto, AttributeProto, ValueInfoProto
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 9, 13, 14
_TYPED_DATA = frozenset({4, 5, 6, 7, 10, 11})
_TENSORS, _GRAPHS, _SPARSE_TENSORS = frozenset({5, 10}), frozenset({6, 11}), frozenset({22, 23})
_TYPE = _SHAPE = 2


class Limits(NamedTuple):
    """Where a model is called too big to look at. `elements` counts those of one tensor."""

    size_bytes: int = 2**31 - 1
    fields: int = 1_000_000
    nodes: int = 100_000
    tensors: int = 100_000
    elements: int = 2**31
    rank: int = 64
    name_bytes: int = 4096


class Value(Struct, frozen=True, kw_only=True):
    """An input or output of the graph; a dimension is a number, a name, or None where nothing is said."""

    name: str
    shape: tuple[int | str | None, ...] | None


def invalid(message: str) -> NoReturn:
    """Says that the bytes are no whole ONNX model."""
    raise ConversionRefused("model_invalid", message)


def unsupported(message: str, *, node: str | None = None, op: str | None = None) -> NoReturn:
    """Says that the model has what these stages do not convert."""
    raise ConversionRefused("model_unsupported", message, node=node or None, op=op or None)


class GraphWalk:
    """One walk over one model's graph; every method takes the span of the message that it reads."""

    def __init__(self, reader: Reader, limits: Limits) -> None:
        self.operators: dict[str, int] = {}
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self.nodes = self.parameters = self.weight_bytes = 0
        self._initialisers: set[str] = set()
        self._tensors = 0
        self._reader, self._limits = reader, limits

    def graph(self, start: int, end: int) -> None:
        """Walks the GraphProto."""
        for number, value, stop in self._messages(start, end):
            match number:
                case 1:
                    self._node(value, stop)
                case 5:
                    self._initialisers.add(self._tensor(value, stop))
                case 11:
                    self.inputs.append(self._value_info(value, stop))
                case 12:
                    self.outputs.append(self._value_info(value, stop))
                case 15:
                    unsupported("the model has sparse initialisers; export it with dense ones")
        if not self.outputs:
            invalid("the model's graph has no output")
        self.inputs = [value for value in self.inputs if value.name not in self._initialisers]

    def text(self, start: int, end: int) -> str:
        """A name."""
        if end - start > self._limits.name_bytes:
            unsupported(f"a name has {end - start} bytes, allowed are {self._limits.name_bytes}")
        try:
            return str(self._reader.content[start:end], "utf-8")
        except UnicodeDecodeError:
            invalid("a name is not UTF-8; the file is not an ONNX model, or it is damaged")

    def _messages(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The number and span of every field that has a length."""
        for number, kind, value, stop in self._reader.fields(start, end):
            if kind == LENGTH_DELIMITED:
                yield number, value, stop

    def _node(self, start: int, end: int) -> None:
        self.nodes += 1
        if self.nodes > self._limits.nodes:
            unsupported(f"the model has more than {self._limits.nodes} nodes")
        name = op = domain = ""
        attributes = []
        for number, value, stop in self._messages(start, end):
            match number:
                case 3:
                    name = self.text(value, stop)
                case 4:
                    op = self.text(value, stop)
                case 7:
                    domain = self.text(value, stop)
                case 5:
                    attributes.append((value, stop))
        _check_operator(name, op, domain)
        for value, stop in attributes:
            self._attribute(value, stop, name, op)
        self.operators[op] = self.operators.get(op, 0) + 1

    def _attribute(self, start: int, end: int, node: str, op: str) -> None:
        for number, value, stop in self._messages(start, end):
            if number in _TENSORS:
                self._tensor(value, stop)
            elif number in _GRAPHS:
                unsupported("a node carries a graph of its own", node=node, op=op)
            elif number in _SPARSE_TENSORS:
                unsupported("a node carries a sparse tensor", node=node, op=op)

    def _tensor(self, start: int, end: int) -> str:
        """The tensor's name; its size is checked against what its dimensions say."""
        self._tensors += 1
        if self._tensors > self._limits.tensors:
            unsupported(f"the model has more than {self._limits.tensors} tensors")
        dims: list[int] = []
        name, data_type, raw, typed = "", 0, None, 0
        for number, kind, value, stop in self._reader.fields(start, end):
            if number == _DIMS:
                self._dims(dims, kind, value, stop)
            elif number == _DATA_TYPE and kind == VARINT:
                data_type = value
            elif number == _NAME and kind == LENGTH_DELIMITED:
                name = self.text(value, stop)
            elif number == _RAW_DATA and kind == LENGTH_DELIMITED:
                raw = stop - value
            elif number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value == 1):
                unsupported(f"the tensor {name!r} is kept in another file; save the model as one file")
            elif number in _TYPED_DATA:
                typed += max(stop - value, 1) if kind == LENGTH_DELIMITED else 1
        self._weigh(name, dims, data_type, raw, typed)
        return name

    def _dims(self, dims: list[int], kind: int, value: int, stop: int) -> None:
        if kind == VARINT:
            dims.append(_signed(value))
        elif kind == LENGTH_DELIMITED:
            dims.extend(_signed(dim) for dim in self._reader.varints(value, stop, self._limits.rank))
        if len(dims) > self._limits.rank:
            invalid(f"a tensor has more than {self._limits.rank} dimensions")

    def _weigh(self, name: str, dims: list[int], data_type: int, raw: int | None, typed: int) -> None:
        elements = self._elements(name, dims)
        if data_type != _STRING and data_type not in _BITS:
            unsupported(f"the tensor {name!r} has the unknown data type {data_type}")
        size = (elements * _BITS.get(data_type, 0) + 7) // 8
        if raw is not None and raw != size:
            invalid(f"the tensor {name!r} has {raw} bytes, its dimensions {dims} need {size}")
        if raw is None and elements > typed * _MOST_ELEMENTS_IN_A_BYTE:
            invalid(f"the tensor {name!r} lacks data: its dimensions {dims} need {elements} elements")
        self.parameters += elements
        self.weight_bytes += size

    def _value_info(self, start: int, end: int) -> Value:
        name, shape = "", None
        for number, value, stop in self._messages(start, end):
            if number == 1:
                name = self.text(value, stop)
            elif number == _TYPE:
                shape = self._shape(value, stop)
        self._elements(name, [dim for dim in shape or () if isinstance(dim, int) and dim > 0])
        return Value(name=name, shape=shape)

    def _shape(self, start: int, end: int) -> tuple[int | str | None, ...] | None:
        """The dimensions in TypeProto.tensor_type.shape."""
        shape: list[int | str | None] | None = None
        for kind, tensor_type, tensor_end in self._messages(start, end):
            if kind != 1:
                unsupported("an input or output is no tensor but a sequence, map, optional or sparse tensor")
            for number, value, stop in self._messages(tensor_type, tensor_end):
                if number == _SHAPE:
                    shape = [self._dimension(*span) for dim, *span in self._messages(value, stop) if dim == 1]
        return None if shape is None else tuple(shape)

    def _dimension(self, start: int, end: int) -> int | str | None:
        found: int | str | None = None
        for number, kind, value, stop in self._reader.fields(start, end):
            if (number, kind) == (1, VARINT):
                found = _signed(value)
            elif (number, kind) == (2, LENGTH_DELIMITED):
                found = self.text(value, stop)
        return found

    def _elements(self, name: str, dims: list[int]) -> int:
        if any(dim < 0 for dim in dims):
            invalid(f"the tensor {name!r} has a negative dimension: {dims}")
        product = 1
        for dim in dims:
            product *= dim
            if product > self._limits.elements:
                unsupported(f"the tensor {name!r} has more than {self._limits.elements} elements: {dims[:8]}")
        return product


def _check_operator(name: str, op: str, domain: str) -> None:
    if domain not in DEFAULT_DOMAIN:
        unsupported(f"the operator {op} is of the domain {domain}, not of standard ONNX", node=name, op=op)
    if op in CONTROL_FLOW:
        unsupported(f"the model has control flow ({op})", node=name, op=op)
    if op in QUANTISED:
        unsupported(f"the model is quantised already ({op}); send the float model", node=name, op=op)


def _signed(value: int) -> int:
    """A varint as the int64 that it stands for."""
    return value - 2**64 if value >= 2**63 else value
