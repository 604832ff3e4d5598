"""What an artifact store promises: its words, its errors, and what a backend has to do.

StorageError
├── StorageUnavailable(address, why)      no answer, a time-out, a server's error, a refusal of ours
│   ├── BucketMissing                     the server answers, the bucket (or directory) is not there
│   └── StorageFull                       there is no room for the object
├── ObjectNotFound(key)
├── ObjectExists(key)                     objects are written once
├── RangeNotSatisfiable(key, byte_range)
└── ArtifactCorrupt(key, found, expected) the bytes are not those that were recorded
InvalidKey(key, why)                      a ValueError: a mistake of the caller
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from msgspec import Struct

MAX_KEY_LENGTH = 200
"""Short enough that a whole key, in whatever disguise, is a file name (255 bytes) in the local backend."""
_SEGMENT = re.compile(r"[A-Za-z0-9_=@+-][A-Za-z0-9._=@+-]*")


class StorageError(Exception):
    """A store did not do what it was asked."""


class StorageUnavailable(StorageError):
    """The store cannot be used now.

    Args:
        address: the server's URL, or the directory.
        why: what happened, in a few words.
    """

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"object storage at {address}: {why}")
        self.address, self.why = address, why


class BucketMissing(StorageUnavailable):
    """The store answers, but the bucket or directory that should hold the objects does not exist."""


class StorageFull(StorageUnavailable):
    """The store answers, but has no room."""


class ObjectNotFound(StorageError):
    """There is no object of that key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"no object {key!r}")
        self.key = key


class ObjectExists(StorageError):
    """Another object has that key; it is left as it is."""

    def __init__(self, key: str) -> None:
        super().__init__(f"object {key!r} exists already")
        self.key = key


class RangeNotSatisfiable(StorageError):
    """The object ends before the range begins (RFC 9110 section 15.5.17)."""

    def __init__(self, key: str, byte_range: ByteRange) -> None:
        super().__init__(f"object {key!r} has no bytes {byte_range.first}-")
        self.key, self.byte_range = key, byte_range


class ArtifactCorrupt(StorageError):
    """The stored bytes are not the recorded ones."""

    def __init__(self, key: str, found: str, expected: str) -> None:
        super().__init__(f"object {key!r} is corrupt: found {found}, expected {expected}")
        self.key, self.found, self.expected = key, found, expected


class InvalidKey(ValueError):
    """Not a key that a store takes."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"invalid object key {key!r}: {why}")
        self.key, self.why = key, why


class ByteRange(Struct, frozen=True):
    """Bytes `first` to `last`, both included as in HTTP (RFC 9110 section 14.1.2); without `last`, to the end."""

    first: int
    last: int | None = None

    def __post_init__(self) -> None:
        if self.first < 0 or (self.last is not None and self.last < self.first):
            raise ValueError(f"not a byte range: {self.first}-{self.last}")


class Download(Struct, frozen=True):
    """An object, or a range of it, being read; `chunks` may be iterated once, until the context that gave it ends."""

    size_bytes: int
    """How many bytes `chunks` gives."""
    total_bytes: int
    """The size of the whole object."""
    chunks: AsyncGenerator[bytes, None]


class ObjectInfo(Struct, frozen=True):
    """What the store says of an object."""

    object_key: str
    size_bytes: int
    modified_at: datetime


class OpenUpload(Struct, frozen=True):
    """An upload that was begun and neither completed nor aborted."""

    object_key: str
    upload_id: str
    active_at: datetime
    """When it was begun (S3), or last written to (local)."""


class Upload(Protocol):
    """One object on its way into a backend. Nothing of it is visible before `publish`, and after it the whole."""

    async def write(self, data: bytes) -> None:
        """Take `data`; waits when the storage is slower than the writer."""

    async def publish(self) -> None:
        """Make the object visible.

        Raises:
            ObjectExists: the key is taken.
        """

    async def discard(self) -> None:
        """Leave nothing behind, whatever has happened so far, `publish` included."""


class Backend(Protocol):
    """What differs between places to keep objects. Keys have been checked; all methods may raise StorageUnavailable."""

    @property
    def address(self) -> str:
        """The server's URL, or the directory; what `StorageUnavailable` names."""

    def upload(self, key: str, media_type: str) -> Upload:
        """Begin an object."""

    def open(self, key: str, byte_range: ByteRange | None) -> AbstractAsyncContextManager[Download]:
        """Read an object; leaving the context ends the transfer, finished or not.

        Raises:
            ObjectNotFound: there is none.
            RangeNotSatisfiable: it ends before the range begins.
        """

    async def stat(self, key: str) -> ObjectInfo:
        """What is known of an object.

        Raises:
            ObjectNotFound: there is none.
        """

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete up to 1,000 objects; those that do not exist are no error."""

    async def copy(self, source: str, target: str, media_type: str) -> None:
        """Copy an object without its bytes passing through this process.

        Raises:
            ObjectNotFound: there is no `source`.
            ObjectExists: `target` is taken.
        """

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Every object whose key begins with `prefix`, in no promised order."""

    def open_uploads(self, prefix: str) -> AsyncIterator[OpenUpload]:
        """Every unfinished upload whose key begins with `prefix`."""

    async def abort_upload(self, upload: OpenUpload) -> None:
        """End an unfinished upload; one that is gone is no error."""


def check_key(key: str) -> str:
    """`key`, if it is one: segments of letters, digits and ``._=@+-`` joined by ``/``, none beginning with a dot.

    So strict because keys are made by the services, never by clients, and what cannot be written cannot escape.

    Raises:
        InvalidKey: it is not.
    """
    if len(key) > MAX_KEY_LENGTH:
        raise InvalidKey(key, f"longer than {MAX_KEY_LENGTH} characters")
    for segment in key.split("/"):
        if not _SEGMENT.fullmatch(segment):
            raise InvalidKey(key, f"segment {segment!r}")
    return key


def check_prefix(prefix: str) -> str:
    """`prefix`, if it is empty or a key and a slash: `jobs/1/`, so that it does not mean `jobs/10/` too.

    Raises:
        InvalidKey: it is neither.
    """
    if prefix and not prefix.endswith("/"):
        raise InvalidKey(prefix, "a prefix ends with a slash")
    if prefix:
        check_key(prefix[:-1])
    return prefix
