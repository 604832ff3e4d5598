"""Files that are read while they arrive, by readers that do not know how they come.

A reader is a generator that yields whenever it needs bytes that have not come yet; `Arriving.supply` brings them. What
is skipped is never held: memory does not depend on the size of the file.

CutOff    the file has ended too early
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")
Reading = Generator[None, None, T]
"""Yields when it needs more bytes, returns what it has read."""


class CutOff(ValueError):
    """The file ends before what it announces."""


class Arriving:
    """A file that arrives in pieces, and the place up to which it has been read."""

    def __init__(self) -> None:
        self._piece = b""
        self._at = 0
        """Within `_piece`; past its end while bytes are skipped that are still to come."""
        self._before = 0
        self._ended = False

    @property
    def position(self) -> int:
        """How many bytes of the file have been read or skipped."""
        return self._before + self._at

    @property
    def skipping(self) -> int:
        """How many of the bytes to come nobody wants to see."""
        return max(0, self._at - len(self._piece))

    def supply(self, piece: bytes) -> None:
        """The next bytes, when a reader has yielded."""
        self._before += len(self._piece)
        self._at -= len(self._piece)
        self._piece = piece

    def pass_by(self, size_bytes: int) -> None:
        """As many bytes, at most `skipping`, have passed unseen."""
        self._before += size_bytes
        self._at -= size_bytes

    def end(self) -> None:
        """No more bytes will come."""
        self._ended = True

    def more(self) -> Reading[bool]:
        """Whether the file goes on.

        Raises:
            CutOff: it has ended within something that was skipped.
        """
        while self._at >= len(self._piece):
            if self._ended:
                if self.skipping:
                    raise CutOff(f"it is cut off: {self.skipping} bytes are missing")
                return False
            yield
        return True

    def skip_to(self, position: int) -> None:
        """Pass over everything before `position`, or go back to it within the bytes that `some` gave."""
        self._at = position - self._before

    def some(self, end: int) -> Reading[bytes]:
        """What has come of the bytes up to `end`, at least one.

        Raises:
            CutOff: there is none.
        """
        if not (yield from self.more()):
            raise CutOff("it is cut off")
        some = self._piece[self._at : self._at + end - self.position]
        self._at += len(some)
        return some

    def take(self, end: int) -> Reading[bytes]:
        """The bytes up to `end`. The caller bounds how many.

        Raises:
            CutOff: the file ends before.
        """
        taken = bytearray()
        while self.position < end:
            taken += yield from self.some(end)
        return bytes(taken)
