"""The artifact store: what holds for objects wherever they are kept."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from converter.common.storage.port import (
    ArtifactCorrupt,
    Backend,
    ByteRange,
    Download,
    ObjectInfo,
    OpenUpload,
    StorageError,
    StorageUnavailable,
    Upload,
    check_key,
    check_prefix,
)
from converter.common.unbroken import to_the_end
from converter.contracts.job import StoredObject

OCTETS = "application/octet-stream"
SLICE_BYTES = 1 << 20
"""How much is hashed or written to a file in one go."""
DELETE_BATCH = 1000
DISCARD_TIMEOUT_S = 20.0
FETCH_GRACE_S = 60.0
FETCH_FLOOR_BYTES_PER_S = 256 << 10
"""A fetch that is slower than this, after the grace, is given up: the caller repeats it when the storage is well."""

_log = structlog.get_logger(__name__)

Apart = Callable[[str], AbstractAsyncContextManager[object]]
"""Made for one thing of many, by its name: what is done with that thing is done within it."""


class Writer:
    """An object being written. It becomes visible, whole, by `commit` and by nothing else."""

    def __init__(self, key: str, upload: Upload) -> None:
        self.object_key, self.size_bytes = key, 0
        self.stored: StoredObject | None = None
        self._upload, self._digest = upload, hashlib.sha256()
        self._intact = True

    async def write(self, data: bytes) -> None:
        """Append `data`, of any length; waits when the storage is slower than the writer.

        Raises:
            StorageUnavailable: also for what was written before and has failed since.
        """
        self._check_open()
        self._intact = False  # until all of data is taken: after a failed or cancelled write there is no commit
        for start in range(0, len(data), SLICE_BYTES):
            part = data[start : start + SLICE_BYTES]
            self._digest.update(part)
            self.size_bytes += len(part)
            await self._upload.write(part)
        self._intact = True

    async def commit(self) -> StoredObject:
        """Make the object visible; the record of it is what `ArtifactStore.fetch` verifies.

        A cancellation waits until it is known whether the object is visible, and then takes it back.

        Raises:
            ObjectExists: another writer was first.
            StorageUnavailable: it is not visible, or will be taken back.
        """
        self._check_open()
        self._intact = False
        await to_the_end(self._upload.publish())
        self.stored = StoredObject(
            object_key=self.object_key, size_bytes=self.size_bytes, sha256=self._digest.hexdigest()
        )
        return self.stored

    def _check_open(self) -> None:
        if not self._intact:
            raise RuntimeError(f"writer of {self.object_key!r} is finished or broken")


class ArtifactStore:
    """Whole, immutable objects by key, in one bucket or directory.

    Every method raises `InvalidKey` for a malformed key and `StorageUnavailable` when the storage cannot be used.

    Args:
        backend: where the objects are.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @asynccontextmanager
    async def writer(self, key: str, *, media_type: str = OCTETS) -> AsyncIterator[Writer]:
        """Write an object as its bytes arrive.

            async with store.writer(key) as writer:
                async for chunk in body:
                    await writer.write(chunk)
                stored = await writer.commit()

        Leaving the context without a commit, by whatever way, leaves nothing: no object, no open upload. Commit is
        explicit because a body that ends early and one that is complete look the same from inside.

        Args:
            key: where; objects are written once.
            media_type: kept by S3 for people who look into the bucket; records carry the type that is served.
        """
        writer = Writer(check_key(key), self._backend.upload(key, media_type))
        try:
            yield writer
        finally:
            if writer.stored is None:
                await to_the_end(self._discard(writer))

    async def _discard(self, writer: Writer) -> None:
        try:
            async with asyncio.timeout(DISCARD_TIMEOUT_S):
                await writer._upload.discard()  # noqa: SLF001 - the writer's own store
        except (StorageError, TimeoutError) as fault:
            # What made the writer fail is on its way to the caller; the janitor ends the upload later.
            _log.warning("storage.discard_failed", object_key=writer.object_key, why=str(fault) or "time-out")

    async def put(self, key: str, source: bytes | Path, *, media_type: str = OCTETS) -> StoredObject:
        """Store `source`, bytes or a file's content.

        Raises:
            ObjectExists: the key is taken.
            OSError: the file cannot be read.
        """
        async with self.writer(key, media_type=media_type) as writer:
            if isinstance(source, bytes):
                await writer.write(source)
            else:
                with await asyncio.to_thread(source.open, "rb", 0) as file:
                    while data := await to_the_end(asyncio.to_thread(file.read, SLICE_BYTES)):
                        await writer.write(data)
            return await writer.commit()

    def open(self, key: str, byte_range: ByteRange | None = None) -> AbstractAsyncContextManager[Download]:
        """Read an object, or a range of it, as it arrives; leaving the context ends the transfer, finished or not.

        The chunks raise `StorageUnavailable` when the transfer breaks off or stalls: never a silent short read.

        Raises:
            ObjectNotFound: there is none.
            RangeNotSatisfiable: it ends before the range begins; a range that ends after it is cut.
        """
        return self._backend.open(check_key(key), byte_range)

    async def fetch(self, recorded: StoredObject, path: Path) -> None:
        """Download to the file `path` (replaced), and verify.

        Raises:
            ObjectNotFound: there is none.
            ArtifactCorrupt: its size or digest is not the recorded one; there is no file then.
            OSError: the file cannot be written.
        """
        try:
            with await asyncio.to_thread(path.open, "wb") as file:
                await self._read(recorded, file.write)
        except BaseException:
            await to_the_end(asyncio.to_thread(path.unlink, missing_ok=True))
            raise

    async def verify(self, recorded: StoredObject) -> None:
        """Read the object once, to know that it is the recorded one.

        Raises:
            ObjectNotFound: there is none.
            ArtifactCorrupt: its size or digest is not the recorded one.
        """
        await self._read(recorded, lambda _: None)

    async def _read(self, recorded: StoredObject, keep: Callable[[bytes], object]) -> None:
        """Give `keep`, in another thread, the bytes of an object as they come; an object that crawls is given up."""
        try:
            async with asyncio.timeout(FETCH_GRACE_S + recorded.size_bytes / FETCH_FLOOR_BYTES_PER_S) as limit:
                await self._read_through(recorded, keep)
        except TimeoutError:
            if not limit.expired():
                raise
            raise StorageUnavailable(
                self._backend.address, f"download of {recorded.object_key!r} is too slow"
            ) from None

    async def _read_through(self, recorded: StoredObject, keep: Callable[[bytes], object]) -> None:
        expected = _described(recorded.size_bytes, recorded.sha256)
        digest = hashlib.sha256()

        def take(data: bytes) -> None:
            digest.update(data)
            keep(data)

        async with self.open(recorded.object_key) as download:
            if download.total_bytes != recorded.size_bytes:
                raise ArtifactCorrupt(recorded.object_key, f"{download.total_bytes} bytes", expected)
            async with aclosing(_gathered(download.chunks)) as slices:
                async for data in slices:
                    await to_the_end(asyncio.to_thread(take, data))
        if digest.hexdigest() != recorded.sha256:
            found = _described(download.total_bytes, digest.hexdigest())
            raise ArtifactCorrupt(recorded.object_key, found, expected)

    async def stat(self, key: str) -> ObjectInfo:
        """What the store says of an object.

        Raises:
            ObjectNotFound: there is none.
        """
        return await self._backend.stat(check_key(key))

    async def delete(self, key: str) -> None:
        """Delete an object; one that does not exist is no error."""
        await self._backend.delete([check_key(key)])

    async def delete_prefix(self, prefix: str, doomed: Callable[[ObjectInfo], bool] = lambda _: True) -> int:
        """Delete every object below `prefix` (`jobs/1/`) that is `doomed`, and say how many there were."""
        if not prefix:
            raise ValueError("an empty prefix means everything")
        deleted = 0
        batch: list[str] = []
        async for info in self.list(prefix):
            if doomed(info):
                batch.append(info.object_key)
            if len(batch) == DELETE_BATCH:
                await self._backend.delete(batch)
                deleted, batch = deleted + len(batch), []
        if batch:
            await self._backend.delete(batch)
        return deleted + len(batch)

    async def copy(self, source: StoredObject, target: str, *, media_type: str = OCTETS) -> StoredObject:
        """Give the bytes of `source` a second key, on the server's side; the copy outlives its source.

        Raises:
            ObjectNotFound: `source` is gone.
            ObjectExists: `target` is taken.
            ArtifactCorrupt: `source` has another size than recorded. The digest is verified by who fetches.
        """
        check_key(target)
        found = await self.stat(source.object_key)
        if found.size_bytes != source.size_bytes:
            expected = _described(source.size_bytes, source.sha256)
            raise ArtifactCorrupt(source.object_key, f"{found.size_bytes} bytes", expected)
        await self._backend.copy(source.object_key, target, media_type)
        return StoredObject(object_key=target, size_bytes=source.size_bytes, sha256=source.sha256)

    def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Every object below `prefix`, which is empty or ends with a slash; in no promised order."""
        return self._backend.list(check_prefix(prefix))

    def open_uploads(self, prefix: str = "") -> AsyncIterator[OpenUpload]:
        """Every upload below `prefix` that was begun and neither committed nor discarded: at work, or orphaned."""
        return self._backend.open_uploads(check_prefix(prefix))

    async def abort_stale_uploads(
        self,
        older_than: timedelta,
        prefix: str = "",
        *,
        spared: Callable[[str], Awaitable[bool]] | None = None,
        apart: Apart = nullcontext,
    ) -> int:
        """End the unfinished uploads that are older, and say how many; for a janitor, after a writer was killed.

        Args:
            older_than: those that were begun (S3) or last written to (local) before that are stale.
            prefix: only those below it.
            spared: asked for the key of each that is stale; a true answer leaves it.
            apart: what goes wrong with one of them goes wrong within this; it may keep it from the others.
        """
        oldest, aborted = datetime.now(UTC) - older_than, 0
        async for upload in self.open_uploads(prefix):
            if upload.active_at <= oldest:
                async with apart(upload.object_key):
                    if not (spared and await spared(upload.object_key)):
                        await self._backend.abort_upload(upload)
                        aborted += 1
        return aborted

    async def probe(self) -> float:
        """Write a small object, read it back, delete it, and say how many seconds that took.

        A write, because a full or read-only storage answers every read.

        Raises:
            BucketMissing: the storage answers, the bucket or directory is not there.
        """
        started = time.monotonic()
        key = f"probe/{os.urandom(8).hex()}"
        await self.put(key, key.encode())
        try:
            async with self.open(key) as download:
                found = b"".join([chunk async for chunk in download.chunks])
        finally:
            await to_the_end(self.delete(key))
        if found != key.encode():
            raise ArtifactCorrupt(key, repr(found[:50]), repr(key.encode()))
        return time.monotonic() - started


async def _gathered(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The same bytes in slices of about `SLICE_BYTES`: a hop to a thread costs as much as hashing 100 kB."""
    pending: list[bytes] = []
    size = 0
    async for chunk in chunks:
        pending.append(chunk)
        size += len(chunk)
        if size >= SLICE_BYTES:
            yield b"".join(pending)
            pending, size = [], 0
    if pending:
        yield b"".join(pending)


def _described(size_bytes: int, sha256: str) -> str:
    return f"{size_bytes} bytes of sha256 {sha256}"
