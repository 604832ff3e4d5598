"""Reads flatbuffers of a known layout in place (https://flatbuffers.dev/internals/), without generated code.

Damaged    an offset or a length points out of the buffer
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_U16, _U32, _I32 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<i")
_FIRST_FIELD = 4
"""A vtable begins with its own size and its table's, two bytes each."""


class Damaged(ValueError):
    """The bytes are no flatbuffer of the layout that is read."""


def _number(form: struct.Struct, content: bytes, at: int) -> int:
    if not 0 <= at <= len(content) - form.size:
        raise Damaged(f"an offset points to byte {at} of {len(content)}")
    return int(form.unpack_from(content, at)[0])


class Table(NamedTuple):
    """The table at byte `at` of `content`. A field goes by its number in the schema; an absent one is zero or none."""

    content: bytes
    at: int

    def u32(self, field: int) -> int:
        """An unsigned number of 32 bits."""
        at = self._field(field)
        return 0 if at is None else _number(_U32, self.content, at)

    def i32(self, field: int) -> int:
        """A signed number of 32 bits."""
        at = self._field(field)
        return 0 if at is None else _number(_I32, self.content, at)

    def table(self, field: int) -> Table | None:
        """A table in this table."""
        at = self._target(field)
        return None if at is None else Table(self.content, at)

    def data(self, field: int) -> bytes:
        """A vector of bytes."""
        at = self._target(field)
        return b"" if at is None else self._elements(at, 1)[1]

    def text(self, field: int, most_bytes: int) -> str:
        """A string."""
        content = self.data(field)
        if len(content) > most_bytes:
            raise Damaged(f"a text has {len(content)} bytes, at most {most_bytes} are read")
        return content.decode(errors="replace")

    def tables(self, field: int, most: int) -> tuple[Table, ...]:
        """A vector of tables."""
        at = self._target(field)
        if at is None:
            return ()
        count, _ = self._elements(at, 4)
        if count > most:
            raise Damaged(f"a vector has {count} tables, at most {most} are read")
        first = at + _U32.size
        places = range(first, first + count * _U32.size, _U32.size)
        return tuple(Table(self.content, place + _number(_U32, self.content, place)) for place in places)

    def _elements(self, at: int, size: int) -> tuple[int, bytes]:
        """The count and the bytes of the vector at `at`, whose elements have `size` bytes each."""
        count = _number(_U32, self.content, at)
        first = at + _U32.size
        if count * size > len(self.content) - first:
            raise Damaged(f"the vector at byte {at} has {count} elements, which is more than there are")
        return count, self.content[first : first + count * size] if size == 1 else b""

    def _target(self, field: int) -> int | None:
        at = self._field(field)
        return None if at is None else at + _number(_U32, self.content, at)

    def _field(self, field: int) -> int | None:
        """Where the field's value is; none if the table does not have it."""
        vtable = self.at - _number(_I32, self.content, self.at)
        entry = _FIRST_FIELD + 2 * field
        if entry + 2 > _number(_U16, self.content, vtable):
            return None
        offset = _number(_U16, self.content, vtable + entry)
        return self.at + offset if offset else None


def root(content: bytes) -> Table:
    """The table that the buffer is of.

    Raises:
        Damaged: there is no room for one.
    """
    return Table(content, _number(_U32, content, 0))
