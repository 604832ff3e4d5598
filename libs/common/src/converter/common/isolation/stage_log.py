"""A conversion's log: everything that its processes write to their standard output and error, within bounds."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self
from uuid import uuid4

FILENAME = "stage.log"
CHUNK_BYTES = 1 << 16
LINE_BYTES = 4096
LINES_PER_S = 100
LINES_AT_ONCE = 500
_TAIL_BYTES = 4096
_ANEW = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class StageLog:
    """Keeps the first `limit_bytes` in `workdir`/stage.log, and hands each line on while it is written.

    Lines that come faster than `LINES_PER_S`, beyond `LINES_AT_ONCE`, are not handed on; a line says how many. Writes
    on the event loop: 64 KiB at a time into the page cache, and never more than the limit.

    Raises:
        OSError: the log cannot be made.
    """

    def __init__(self, workdir: Path, limit_bytes: int, on_line: Callable[[str], None] | None) -> None:
        self.tail = b""
        """The last few lines."""
        self._path = workdir / FILENAME
        self._limit_bytes = self._left_bytes = limit_bytes
        self._dropped_bytes = 0
        self._lines = _PacedLines(on_line) if on_line else None
        self._file = os.open(self._path, _ANEW | os.O_TRUNC, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._file)

    async def copy(self, output: asyncio.StreamReader) -> None:
        """Read until the last process that could write has closed its end."""
        while chunk := await output.read(CHUNK_BYTES):
            self.tail = (self.tail + chunk)[-_TAIL_BYTES:]
            kept = self._write(chunk[: self._left_bytes])
            self._left_bytes = self._left_bytes - kept if kept else 0
            self._dropped_bytes += len(chunk) - kept
            if self._lines:
                self._lines.feed(chunk)

    def finish(self) -> None:
        """Once no process is left: say what is missing, and see to it that the log is a plain file of ours.

        The converter can write where the log lies. Whoever reads it next must not follow a link that it put there.
        """
        if self._lines:
            self._lines.finish()
        if self._tampered():
            self._restore()
        if self._dropped_bytes:
            self._write(f"\n[{self._dropped_bytes} bytes more are not kept]\n".encode())

    def _write(self, data: bytes) -> int:
        """How much was written: a full disk costs the log, not the conversion."""
        try:
            return os.write(self._file, data) if data else 0
        except OSError:
            return 0

    def _tampered(self) -> bool:
        ours = os.fstat(self._file)
        try:
            found = os.lstat(self._path)
        except FileNotFoundError:
            return True
        return not os.path.samestat(ours, found) or ours.st_size > self._limit_bytes

    def _restore(self) -> None:
        kept = os.pread(self._file, self._limit_bytes, 0)
        try:
            self._path.unlink(missing_ok=True)
        except IsADirectoryError:
            # It may be locked, and hold more than can be removed on the event loop; whoever removes the work directory
            # removes it. The converter cannot have taken a name that it could not guess.
            self._path.rename(self._path.with_name(uuid4().hex))
        restored = os.open(self._path, _ANEW | os.O_EXCL, 0o600)
        os.close(self._file)
        self._file = restored
        self._write(kept)
        self._write(b"\n[the conversion tampered with its log; this is what it was]\n")


class _PacedLines:
    """Cuts a stream into lines and hands them on, as many as a token bucket lets through."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._begun = b""
        self._tokens, self._counted_at = float(LINES_AT_ONCE), time.monotonic()
        self._left_out = 0

    def feed(self, chunk: bytes) -> None:
        *lines, self._begun = (self._begun + chunk).split(b"\n")
        if len(self._begun) > LINE_BYTES:
            lines.append(self._begun)  # cut: what follows counts as a line of its own
            self._begun = b""
        now = time.monotonic()
        self._tokens = min(LINES_AT_ONCE, self._tokens + (now - self._counted_at) * LINES_PER_S)
        self._counted_at = now
        for line in lines:
            self._hand_on(line)

    def finish(self) -> None:
        if self._begun:
            self._hand_on(self._begun)
        self._tell_left_out()

    def _hand_on(self, line: bytes) -> None:
        if self._tokens < 1:
            self._left_out += 1
            return
        self._tell_left_out()
        self._tokens -= 1
        self._on_line(line[:LINE_BYTES].decode(errors="replace").rstrip("\r"))

    def _tell_left_out(self) -> None:
        if self._left_out:
            self._on_line(f"[{self._left_out} lines are left out here; the stage's log has them]")
            self._left_out = 0
