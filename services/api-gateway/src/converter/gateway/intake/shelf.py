"""Where the files of a form go: the artifact store, or nowhere when the form is only looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from converter.common.storage import Writer
from converter.common.storage.store import OCTETS
from converter.contracts.job import StoredObject


class Shelf(Protocol):
    """As much of `ArtifactStore` as taking in a form needs."""

    def writer(self, key: str, *, media_type: str = OCTETS) -> AbstractAsyncContextManager[Writer]:
        """Write an object as its bytes arrive."""

    async def copy(self, source: StoredObject, target: str, *, media_type: str = OCTETS) -> StoredObject:
        """Give the bytes of `source` a second key."""

    async def delete(self, key: str) -> None:
        """Delete an object; one that does not exist is no error."""


class Nowhere:
    """A shelf that keeps nothing; sizes and digests are as if it did."""

    @asynccontextmanager
    async def writer(self, key: str, *, media_type: str = OCTETS) -> AsyncIterator[Writer]:  # noqa: ARG002 - not kept
        """Count and hash what is written."""
        yield Writer(key, _Dropped())

    async def copy(self, source: StoredObject, target: str, *, media_type: str = OCTETS) -> StoredObject:  # noqa: ARG002 - not kept
        """The object that there would be."""
        return StoredObject(object_key=target, size_bytes=source.size_bytes, sha256=source.sha256)

    async def delete(self, key: str) -> None:
        """There is nothing."""


class _Dropped:
    async def write(self, data: bytes) -> None:
        """Forget it."""

    async def publish(self) -> None:
        """There is nothing to show."""

    async def discard(self) -> None:
        """There is nothing to undo."""
