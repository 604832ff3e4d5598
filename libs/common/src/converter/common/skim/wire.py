"""The protobuf wire format, read while it arrives (https://protobuf.dev/programming-guides/encoding/).

Damaged    the bytes are no protobuf message, or one with more fields than allowed
"""

from __future__ import annotations

from converter.common.arriving import Arriving, CutOff, Reading

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
UNKNOWN_END = 2**63
"""Where a message ends whose length nobody has said: the file's own."""
_LAST_SHIFT = 63


class Damaged(ValueError):
    """The bytes cannot be read as a protobuf message."""


class Wire(Arriving):
    """A protobuf message that arrives; at most `budget` fields are read.

    Without the budget, 100 MB of fields of two bytes each would hold a reader for minutes.
    """

    def __init__(self, budget: int) -> None:
        super().__init__()
        self._budget = budget

    def field(self, end: int) -> Reading[tuple[int, int, int, int]]:
        """The next field of a message that ends at `end`: (number, wire type, value, end of the field).

        The value of a varint is the unsigned number; of every other wire type it is where the field's bytes begin.
        Those are still to be read, or to be passed over with `skip_to`.

        Raises:
            Damaged: there is no whole field, or the budget is used up.
        """
        self._budget -= 1
        if self._budget < 0:
            raise Damaged("it has too many fields")
        key = yield from self.varint(end)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise Damaged(f"a field has the number 0, at byte {self.position}")
        if kind == VARINT:
            value = yield from self.varint(end)
            return number, kind, value, self.position
        if kind == LENGTH_DELIMITED:
            size = yield from self.varint(end)
        elif kind in {FIXED64, FIXED32}:
            size = 8 if kind == FIXED64 else 4
        else:
            raise Damaged(f"field {number} has the wire type {kind}, at byte {self.position}")
        left = end - self.position
        if size > left:
            raise Damaged(f"field {number} has {size} bytes, but {left} are left; the file may be cut off")
        return number, kind, self.position, self.position + size

    def varint(self, end: int) -> Reading[int]:
        """The next unsigned 64-bit number, which ends before `end`."""
        result = shift = 0
        while self.position < end and shift <= _LAST_SHIFT:
            if self._at >= len(self._piece) and not (yield from self.more()):
                raise CutOff("it is cut off")
            byte = self._piece[self._at]
            self._at += 1
            result |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the continuation bit
                return result & 0xFFFF_FFFF_FFFF_FFFF
            shift += 7
        raise Damaged(f"a number does not end, at byte {self.position}")
