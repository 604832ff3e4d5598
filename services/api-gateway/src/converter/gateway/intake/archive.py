"""The reference images of a job as one stored ZIP that is written while they arrive."""

from __future__ import annotations

import re
import zipfile
from types import TracebackType
from typing import IO, Self, cast

from converter.common.storage import Writer

NAME_MAX_CHARS = 80
_DATE = (1980, 1, 1, 0, 0, 0)
"""The same for every member: the archive of the same images is the same bytes."""


class _Outbox:
    """A file that cannot seek, for `zipfile` to write into; what it holds is carried to the store."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


class ImageArchive:
    """Appends images to `writer`, one at a time; as a context it only lets go, `finish` completes the archive."""

    def __init__(self, writer: Writer) -> None:
        self.count = 0
        self._writer, self._outbox = writer, _Outbox()
        self._zip = zipfile.ZipFile(cast("IO[bytes]", self._outbox), "w", zipfile.ZIP_STORED)
        self._member: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._member is not None:
            self._member.close()
        self._zip.close()

    async def begin(self, filename: str) -> None:
        """Start the next image; its member is named `000_<filename>`, so the client's order is kept."""
        info = zipfile.ZipInfo(f"{self.count:03d}_{safe_name(filename)}", _DATE)
        info.external_attr = 0o600 << 16
        self.count += 1
        self._member = self._zip.open(info, "w")
        await self._carry()

    async def write(self, data: bytes) -> None:
        """Append to the image that was begun."""
        if self._member is None:
            raise RuntimeError("no image was begun")
        self._member.write(data)
        await self._carry()

    async def end(self) -> None:
        """The image that was begun is whole."""
        if self._member is None:
            raise RuntimeError("no image was begun")
        self._member.close()
        self._member = None
        await self._carry()

    async def finish(self) -> None:
        """Write the directory; the archive is whole."""
        self._zip.close()
        await self._carry()

    async def _carry(self) -> None:
        await self._writer.write(self._outbox.take())


def safe_name(filename: str) -> str:
    """`filename` without anything that a path, a shell or a terminal could take for more than a name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", filename)[-NAME_MAX_CHARS:].lstrip(".") or "image"
