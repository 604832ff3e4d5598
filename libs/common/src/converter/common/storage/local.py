"""Objects as files below a directory that the services of one machine share.

An upload is a file in `.uploads/`; publishing it is one hard link, which the kernel makes whole or not at all and never
over another file (link(2)). A copy is one more link, so file systems without hard links are of no use here. Media types
are not kept. A key cannot be an object and the beginning of others (`a` and `a/b`) at once.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

from converter.common.disk import is_full
from converter.common.storage.port import (
    BucketMissing,
    ByteRange,
    Download,
    ObjectExists,
    ObjectInfo,
    ObjectNotFound,
    OpenUpload,
    RangeNotSatisfiable,
    StorageFull,
    StorageUnavailable,
)
from converter.common.unbroken import to_the_end

P = ParamSpec("P")
T = TypeVar("T")

CHUNK_BYTES = 256 << 10
UPLOADS = ".uploads"
"""No key begins with a dot, so no object can lie there."""


class Directory:
    """File operations below `root`, each in a thread that is not left alone, with what their errors mean."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do `work` off the loop, to its end even when cancelled.

        A thread cannot be stopped, and must not go on with a file that is closed meanwhile.

        Raises:
            StorageUnavailable: an OSError; BucketMissing when the directory is gone, StorageFull without room.
        """

        def guarded() -> T:
            try:
                return work(*args, **kwargs)
            except OSError as fault:
                if not self.root.is_dir():
                    raise BucketMissing(str(self.root), "the directory does not exist") from fault
                kind = StorageFull if is_full(fault) else StorageUnavailable
                raise kind(str(self.root), f"{type(fault).__name__}: {fault.strerror}") from fault

        return await to_the_end(asyncio.to_thread(guarded))

    def object(self, key: str) -> Path:
        """Where the object of `key` lies."""
        return self.root / key

    def upload(self, key: str) -> Path:
        """A new place for an upload, whose name tells the key: a comma and a tilde are in no key."""
        return self.root / UPLOADS / f"{key.replace('/', ',')}~{secrets.token_hex(8)}"

    def link(self, source: Path, key: str) -> None:
        """Give the file `source` the name `key`.

        Raises:
            ObjectExists: the key is taken.
        """
        target = self.object(key)
        while True:
            _make_directories(target.parent, self.root)
            try:
                os.link(source, target)
                break
            except FileExistsError:
                raise ObjectExists(key) from None
            except FileNotFoundError:
                # Either the parent was empty and somebody pruned it just now, or there is no source.
                source.stat()

    def sync(self, key: str) -> None:
        """Put the name `key` on the disk: every directory of it (fsync(2): a file's own fsync does not)."""
        directory = self.object(key)
        while directory != self.root:
            directory = directory.parent
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def prune(self, directory: Path) -> None:
        """Remove `directory` and its parents as far as they are empty."""
        with suppress(OSError):
            while directory != self.root:
                directory.rmdir()
                directory = directory.parent


class LocalUpload:
    """An object as a file that nobody looks for, until it is linked to its key."""

    def __init__(self, directory: Directory, key: str) -> None:
        self._directory, self._key = directory, key
        self._path = directory.upload(key)
        self._file: BinaryIO | None = None
        self._published = False

    async def write(self, data: bytes) -> None:
        """Append `data`."""
        await self._directory.run(lambda: self._opened().write(data))

    def _opened(self) -> BinaryIO:
        if self._file is None:
            _make_directories(self._path.parent, self._directory.root)
            self._file = self._path.open("xb")
        return self._file

    async def publish(self) -> None:
        """Put the bytes on the disk, then link them to the key."""
        await self._directory.run(self._link)

    def _link(self) -> None:
        with self._opened() as file:
            file.flush()
            os.fsync(file.fileno())
        self._directory.link(self._path, self._key)
        self._published = True
        self._directory.sync(self._key)
        self._path.unlink()

    async def discard(self) -> None:
        """Remove the file, and the object if it is ours."""
        await self._directory.run(self._remove)

    def _remove(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # what could not be written is not wanted either
                self._file.close()
            self._path.unlink(missing_ok=True)
        if self._published:
            target = self._directory.object(self._key)
            target.unlink(missing_ok=True)
            self._directory.prune(target.parent)


class LocalBackend:
    """See `Backend`."""

    def __init__(self, root: Path) -> None:
        self._directory = Directory(root)

    @property
    def address(self) -> str:
        """The directory."""
        return str(self._directory.root)

    def upload(self, key: str, media_type: str) -> LocalUpload:  # noqa: ARG002 - not kept, see the module's docstring
        """Begin an object; there is no file before the first bytes."""
        return LocalUpload(self._directory, key)

    @asynccontextmanager
    async def open(self, key: str, byte_range: ByteRange | None) -> AsyncIterator[Download]:
        """Read an object, or a range of it."""
        file = await self._directory.run(self._opened, key)
        with file:
            total_bytes = os.fstat(file.fileno()).st_size
            first, end = 0, total_bytes
            if byte_range is not None:
                if byte_range.first >= total_bytes:
                    raise RangeNotSatisfiable(key, byte_range)
                first = byte_range.first
                end = total_bytes if byte_range.last is None else min(byte_range.last + 1, total_bytes)
            async with aclosing(self._chunks(file, first, end)) as chunks:
                yield Download(end - first, total_bytes, chunks)

    def _opened(self, key: str) -> BinaryIO:
        self._info(key)
        try:
            return self._directory.object(key).open("rb", buffering=0)
        except FileNotFoundError:
            raise ObjectNotFound(key) from None

    async def _chunks(self, file: BinaryIO, first: int, end: int) -> AsyncGenerator[bytes, None]:
        position = first
        while position < end:
            size = min(CHUNK_BYTES, end - position)
            chunk = await self._directory.run(os.pread, file.fileno(), size, position)
            if not chunk:
                raise StorageUnavailable(self.address, f"an object ended {end - position} bytes early")
            position += len(chunk)
            yield chunk

    async def stat(self, key: str) -> ObjectInfo:
        """What the file system says of an object."""
        return await self._directory.run(self._info, key)

    def _info(self, key: str) -> ObjectInfo:
        try:
            found = self._directory.object(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            self._directory.root.stat()
            raise ObjectNotFound(key) from None
        if not stat.S_ISREG(found.st_mode):
            raise ObjectNotFound(key)
        return ObjectInfo(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, and the directories that are empty then."""
        await self._directory.run(self._delete, keys)

    def _delete(self, keys: Sequence[str]) -> None:
        refused: OSError | None = None
        for key in keys:
            path = self._directory.object(key)
            if path.is_file():
                try:
                    path.unlink(missing_ok=True)
                except OSError as fault:  # the others can go all the same
                    refused = fault
                self._directory.prune(path.parent)
        if refused:
            raise refused

    async def copy(self, source: str, target: str, media_type: str) -> None:  # noqa: ARG002 - not kept
        """Link the same bytes to a second key."""
        await self._directory.run(self._copy, source, target)

    def _copy(self, source: str, target: str) -> None:
        self._info(source)
        self._directory.link(self._directory.object(source), target)
        self._directory.sync(target)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Every object below `prefix`, a directory at a time."""
        waiting = [prefix]
        while waiting:
            directory = waiting.pop()
            infos, folders = await self._directory.run(self._scanned, directory)
            for info in infos:
                yield info
            waiting += [f"{directory}{folder}/" for folder in folders]

    def _scanned(self, prefix: str) -> tuple[Sequence[ObjectInfo], Sequence[str]]:
        """The objects and the directories that lie right in `prefix`."""
        infos: list[ObjectInfo] = []
        folders: list[str] = []
        self._directory.root.stat()
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self._directory.root / prefix) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                else:
                    with suppress(ObjectNotFound):  # deleted meanwhile
                        infos.append(self._info(f"{prefix}{entry.name}"))
        return infos, [folder for folder in folders if prefix or folder != UPLOADS]

    async def open_uploads(self, prefix: str) -> AsyncIterator[OpenUpload]:
        """Every file in `.uploads/` whose key begins with `prefix`."""
        for upload in await self._directory.run(self._open_uploads):
            if upload.object_key.startswith(prefix):
                yield upload

    def _open_uploads(self) -> Sequence[OpenUpload]:
        found = []
        self._directory.root.stat()
        for path in (self._directory.root / UPLOADS).glob("*~*"):
            with suppress(FileNotFoundError):  # finished meanwhile
                active_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
                key, _, _ = path.name.partition("~")
                found.append(OpenUpload(key.replace(",", "/"), path.name, active_at))
        return found

    async def abort_upload(self, upload: OpenUpload) -> None:
        """Remove the file of an unfinished upload."""
        path = self._directory.root / UPLOADS / upload.upload_id
        await self._directory.run(path.unlink, missing_ok=True)


def _make_directories(directory: Path, root: Path) -> None:
    """Make `directory` below `root`, which has to exist: a store that has lost its directory must not begin anew."""
    root.stat()
    directory.mkdir(parents=True, exist_ok=True)
