"""The part of `skim` that walks a graph: counts, names, and what cannot be converted; field numbers of onnx.proto."""

from __future__ import annotations

import hashlib
from typing import NamedTuple, NoReturn

from msgspec import Struct

from converter.common.arriving import Reading
from converter.common.conversion import ConversionRefused
from converter.common.skim.wire import LENGTH_DELIMITED, VARINT, Wire

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
    operators: int = 1_000
    opsets: int = 100
    name_bytes: int = 4096
    kept_bytes: int = 4 << 20


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
    """One walk over one model's graph; every method reads the message that begins here, up to its `end`."""

    def __init__(self, wire: Wire, limits: Limits) -> None:
        self.operators: dict[str, int] = {}
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self.nodes = self.parameters = self.weight_bytes = 0
        self._initialisers: set[bytes] = set()
        """Digests of their names: a hundred thousand names of any length shall not fill the memory."""
        self._tensors = self._kept_bytes = 0
        self._wire, self._limits = wire, limits

    def graph(self, end: int) -> Reading[None]:
        """Walks the GraphProto."""
        while self._wire.position < end:
            number, stop = yield from self._message(end)
            match number:
                case 1:
                    yield from self._node(stop)
                case 5:
                    self._initialisers.add(_digest((yield from self._tensor(stop))))
                case 11:
                    self.inputs.append((yield from self._value_info(stop)))
                case 12:
                    self.outputs.append((yield from self._value_info(stop)))
                case 15:
                    unsupported("the model has sparse initialisers; export it with dense ones")
            self._wire.skip_to(stop)
        if not self.outputs:
            invalid("the model's graph has no output")
        self.inputs = [value for value in self.inputs if _digest(value.name) not in self._initialisers]

    def text(self, end: int) -> Reading[str]:
        """A name."""
        size = end - self._wire.position
        if size > self._limits.name_bytes:
            unsupported(f"a name has {size} bytes, allowed are {self._limits.name_bytes}")
        try:
            return str((yield from self._wire.take(end)), "utf-8")
        except UnicodeDecodeError:
            invalid("a name is not UTF-8; the file is not an ONNX model, or it is damaged")

    def _kept(self, end: int) -> Reading[str]:
        """A name that stays in memory until the walk is over."""
        self._kept_bytes += end - self._wire.position
        if self._kept_bytes > self._limits.kept_bytes:
            unsupported(f"the names of inputs, outputs and operators have more than {self._limits.kept_bytes} bytes")
        return (yield from self.text(end))

    def _message(self, end: int) -> Reading[tuple[int, int]]:
        """The number and end of the next field that has a length; number 0 at the end of the message."""
        while self._wire.position < end:
            number, kind, _, stop = yield from self._wire.field(end)
            if kind == LENGTH_DELIMITED:
                return number, stop
            self._wire.skip_to(stop)
        return 0, end

    def _node(self, end: int) -> Reading[None]:
        self.nodes += 1
        if self.nodes > self._limits.nodes:
            unsupported(f"the model has more than {self._limits.nodes} nodes")
        name = op = domain = ""
        while self._wire.position < end:
            number, stop = yield from self._message(end)
            match number:
                case 3:
                    name = yield from self.text(stop)
                case 4:
                    op = yield from self.text(stop)
                case 7:
                    domain = yield from self.text(stop)
                case 5:
                    # Its writer has put the operator first; what it is says more than what it carries.
                    _check_operator(name, op, "")
                    yield from self._attribute(stop, name, op)
            self._wire.skip_to(stop)
        _check_operator(name, op, domain)
        self._count(op)

    def _count(self, op: str) -> None:
        if op not in self.operators and len(self.operators) == self._limits.operators:
            unsupported(f"the model has more than {self._limits.operators} kinds of operators")
        self.operators[op] = self.operators.get(op, 0) + 1

    def _attribute(self, end: int, node: str, op: str) -> Reading[None]:
        while self._wire.position < end:
            number, stop = yield from self._message(end)
            if number in _TENSORS:
                yield from self._tensor(stop)
            elif number in _GRAPHS:
                unsupported("a node carries a graph of its own", node=node, op=op)
            elif number in _SPARSE_TENSORS:
                unsupported("a node carries a sparse tensor", node=node, op=op)
            self._wire.skip_to(stop)

    def _tensor(self, end: int) -> Reading[str]:
        """The tensor's name; its size is checked against what its dimensions say."""
        self._tensors += 1
        if self._tensors > self._limits.tensors:
            unsupported(f"the model has more than {self._limits.tensors} tensors")
        dims: list[int] = []
        name, data_type, raw, typed = "", 0, None, 0
        while self._wire.position < end:
            number, kind, value, stop = yield from self._wire.field(end)
            if number == _DIMS:
                yield from self._dims(dims, kind, value, stop)
            elif number == _DATA_TYPE and kind == VARINT:
                data_type = value
            elif number == _NAME and kind == LENGTH_DELIMITED:
                name = yield from self.text(stop)
            elif number == _RAW_DATA and kind == LENGTH_DELIMITED:
                raw = stop - value
            elif number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value == 1):
                unsupported(f"the tensor {name!r} is kept in another file; save the model as one file")
            elif number in _TYPED_DATA:
                typed += max(stop - value, 1) if kind == LENGTH_DELIMITED else 1
            self._wire.skip_to(stop)
        self._weigh(name, dims, data_type, raw, typed)
        return name

    def _dims(self, dims: list[int], kind: int, value: int, end: int) -> Reading[None]:
        if kind == VARINT:
            dims.append(_signed(value))
        elif kind == LENGTH_DELIMITED:
            while self._wire.position < end and len(dims) <= self._limits.rank:
                dims.append(_signed((yield from self._wire.varint(end))))
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

    def _value_info(self, end: int) -> Reading[Value]:
        name, shape = "", None
        while self._wire.position < end:
            number, stop = yield from self._message(end)
            if number == 1:
                name = yield from self._kept(stop)
            elif number == _TYPE:
                shape = yield from self._shape(stop)
            self._wire.skip_to(stop)
        self._elements(name, [dim for dim in shape or () if isinstance(dim, int) and dim > 0])
        return Value(name=name, shape=shape)

    def _shape(self, end: int) -> Reading[tuple[int | str | None, ...] | None]:
        """The dimensions in TypeProto.tensor_type.shape."""
        shape: tuple[int | str | None, ...] | None = None
        while self._wire.position < end:
            kind, tensor_end = yield from self._message(end)
            if kind > 1:
                unsupported("an input or output is no tensor but a sequence, map, optional or sparse tensor")
            while self._wire.position < tensor_end:
                number, stop = yield from self._message(tensor_end)
                if number == _SHAPE:
                    shape = yield from self._dimensions(stop)
                self._wire.skip_to(stop)
        return shape

    def _dimensions(self, end: int) -> Reading[tuple[int | str | None, ...]]:
        """TensorShapeProto."""
        shape: list[int | str | None] = []
        while self._wire.position < end:
            number, stop = yield from self._message(end)
            if number == 1:
                shape.append((yield from self._dimension(stop)))
            if len(shape) > self._limits.rank:
                invalid(f"an input or output has more than {self._limits.rank} dimensions")
            self._wire.skip_to(stop)
        return tuple(shape)

    def _dimension(self, end: int) -> Reading[int | str | None]:
        found: int | str | None = None
        while self._wire.position < end:
            number, kind, value, stop = yield from self._wire.field(end)
            if (number, kind) == (1, VARINT):
                found = _signed(value)
            elif (number, kind) == (2, LENGTH_DELIMITED):
                found = yield from self._kept(stop)
            self._wire.skip_to(stop)
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


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def _signed(value: int) -> int:
    """A varint as the int64 that it stands for."""
    return value - 2**64 if value >= 2**63 else value
