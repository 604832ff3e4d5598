"""An artifact on its way out of storage: its bytes, verified, and never the last of them too late."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import NoReturn, Self

from msgspec import Struct

from converter.common.storage import ArtifactCorrupt, Download
from converter.contracts.job import Artifact


class NotWanted(Exception):
    """The promotion has ended meanwhile: another worker did it, or the client was told no."""


class TooLate(Exception):
    """There is no time left for the store to answer before the client is told no."""


class Upload(Struct, frozen=True, kw_only=True):
    """`artifact` is to become `target_object_key`; `open` reads it from the start, as often as it is called."""

    target_object_key: str
    artifact: Artifact
    open: Callable[[], AbstractAsyncContextManager[Download]]
    deadline: datetime
    """When the client is told no."""
    wanted: Callable[[], Awaitable[bool]]
    """Whether the promotion is still pending; a worker that was asleep must not overwrite what came after it."""

    @property
    def remaining_s(self) -> float:
        """Seconds to the deadline, by the wall clock: it goes on while the process or the machine is asleep."""
        return (self.deadline - datetime.now(UTC)).total_seconds()


class UploadBody:
    """The bytes of a request, to be iterated once, while the context is open.

    The last chunk is held back until size and digest of the whole are known to be the recorded ones and there is time
    left for an answer: a store that is given less than it was announced keeps nothing.

    Args:
        upload: what is sent.
        download: its bytes, from the start.
        answer_s: how long before the deadline the last chunk must go.
        patience: the time-out on the receiver; it stands still while the bytes come from storage.
        patience_s: how long the receiver may take over one chunk, and over its answer.
    """

    def __init__(
        self, upload: Upload, download: Download, *, answer_s: float, patience: asyncio.Timeout, patience_s: float
    ) -> None:
        self._upload, self._chunks, self._answer_s = upload, download.chunks, answer_s
        self._patience, self._patience_s = patience, patience_s
        self._digest, self._size_bytes = hashlib.sha256(), 0
        self._next: bytes | None = None
        self._turn, self._over = asyncio.Lock(), False
        self.complete = False
        """Whether the last chunk has been given away."""
        self.failure: Exception | None = None
        """What ended the iteration early; an HTTP client may report it as a broken connection."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        # An HTTP client that gives up may leave its writer behind, cancelled but not yet gone: the download must not
        # be closed under it.
        self._over = True
        async with self._turn:
            pass

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        async with self._turn:
            if self._over:
                raise RuntimeError("the upload is over")
            return await self._advance()

    async def _advance(self) -> bytes:
        self._patience.reschedule(None)
        try:
            chunk = await self._read() if self._next is None else self._next
            self._next = await self._read() if chunk else b""
            if not self._next and not self.complete:
                await self._release()
        except Exception as failure:
            self.failure = failure
            raise
        self._patience.reschedule(asyncio.get_running_loop().time() + self._patience_s)
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def _read(self) -> bytes:
        """The next chunk, or nothing at the end."""
        chunk = await anext(self._chunks, b"")
        self._digest.update(chunk)
        self._size_bytes += len(chunk)
        if self._size_bytes > self._upload.artifact.size_bytes:
            # Now, not at the end: what came before may be all that the store was told to expect.
            self._refuse()
        return chunk

    async def _release(self) -> None:
        artifact = self._upload.artifact
        if (self._size_bytes, self._digest.hexdigest()) != (artifact.size_bytes, artifact.sha256):
            self._refuse()
        if not await self._upload.wanted():
            raise NotWanted
        if self._upload.remaining_s < self._answer_s:
            raise TooLate
        self.complete = True

    def _refuse(self) -> NoReturn:
        artifact = self._upload.artifact
        found = f"{self._size_bytes} bytes of sha256 {self._digest.hexdigest()}"
        raise ArtifactCorrupt(artifact.object_key, found, f"{artifact.size_bytes} bytes of sha256 {artifact.sha256}")
