"""The protobuf wire format, read in place (https://protobuf.dev/programming-guides/encoding/).

Damaged    the bytes are no protobuf message, or one with more fields than allowed
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
_LAST_SHIFT = 63


class Damaged(ValueError):
    """The bytes cannot be read as a protobuf message."""


class Reader:
    """Walks messages in `content`, at most `budget` fields of them in all.

    Without the budget, 100 MB of fields of two bytes each would hold a reader for minutes.
    """

    def __init__(self, content: bytes | mmap.mmap, budget: int) -> None:
        self.content = content
        self._budget = budget

    def fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Each field of the message in content[start:end]: (number, wire type, value, end of the field).

        The value of a varint is the unsigned number; of every other wire type it is where the field's bytes begin.

        Raises:
            Damaged: the span holds no whole message, or the budget is used up.
        """
        at = start
        while at < end:
            self._budget -= 1
            if self._budget < 0:
                raise Damaged("it has too many fields")
            key, at = self._varint(at, end)
            number, kind = key >> 3, key & 7
            if number == 0:
                raise Damaged(f"a field has the number 0, at byte {at}")
            if kind == VARINT:
                value, at = self._varint(at, end)
                yield number, kind, value, at
                continue
            if kind == LENGTH_DELIMITED:
                size, at = self._varint(at, end)
            elif kind in {FIXED64, FIXED32}:
                size = 8 if kind == FIXED64 else 4
            else:
                raise Damaged(f"field {number} has the wire type {kind}, at byte {at}")
            if size > end - at:
                raise Damaged(f"field {number} has {size} bytes, but {end - at} are left; the file may be cut off")
            yield number, kind, at, at + size
            at += size

    def varints(self, start: int, end: int, most: int) -> Iterator[int]:
        """The numbers of a packed field, `most` and one more at the most."""
        at = start
        while at < end and most >= 0:
            value, at = self._varint(at, end)
            most -= 1
            yield value

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """The unsigned 64-bit number at `at`, and where it ends."""
        result = shift = 0
        while at < end and shift <= _LAST_SHIFT:
            byte = self.content[at]
            at += 1
            result |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the continuation bit
                return result & 0xFFFF_FFFF_FFFF_FFFF, at
            shift += 7
        raise Damaged(f"a number does not end, at byte {at}")
