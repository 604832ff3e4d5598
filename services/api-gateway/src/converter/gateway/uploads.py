"""Resumable uploads: a model that arrives in several requests, at whatever gateway.

All of an upload lies in object storage, below `uploads/<client>/<upload id>/`: `info`, and what has arrived as objects
that are named for the offset at which they begin. Objects are written once, so two gateways that believe to continue
the same upload cannot both write one place, and what a crash takes away is at most the object that was filling.

    QuotaReached       the client has as many uploads, or as many bytes in them, as it may
    UploadNotFound     there is none of this client, or no longer
    OffsetConflict     the request continues elsewhere than where the upload ends
    UploadTooLong      more bytes than were announced
    ChecksumMismatch   other bytes than were announced; none of them is kept
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from weakref import WeakValueDictionary

import msgspec
from msgspec import Struct

from converter.common.identifiers import made_at, uuid7
from converter.common.storage import Apart, ArtifactStore, ObjectExists, ObjectInfo, ObjectNotFound
from converter.common.unbroken import to_the_end
from converter.contracts.job import Timestamp, moment, timestamp

ROOT = "uploads/"
PIECE_BYTES = 4 << 20
"""How much a gateway gathers before it stores it: what a crash can cost, and a PUT of its own for S3."""
OFFSET_DIGITS = 12


class Quota(Struct, frozen=True, kw_only=True):
    """How much of the uploads a client may have: those that no job has used and that have not ended."""

    count: int = 20
    size_bytes: int = 4 << 30
    """Of all of them together, as they were announced."""


class QuotaReached(Exception):
    """`count` uploads of the client, of `size_bytes` together, leave no room in its `quota` for another."""

    def __init__(self, quota: Quota, count: int, size_bytes: int) -> None:
        super().__init__(f"{count} uploads of {size_bytes} bytes")
        self.quota, self.count, self.size_bytes = quota, count, size_bytes


class UploadNotFound(Exception):
    """Absent, expired, or another client's."""


class OffsetConflict(Exception):
    """The upload ends elsewhere."""


class UploadTooLong(Exception):
    """The body goes on past the announced length."""


class ChecksumMismatch(Exception):
    """The body is not the one that the checksum is of."""


class Upload(Struct, frozen=True, kw_only=True):
    """One upload; `size_bytes` is what it will have when it is complete."""

    upload_id: str
    client_id: str
    size_bytes: int
    filename: str
    metadata: str
    """`Upload-Metadata` as the client wrote it."""
    created_at: Timestamp


class Checksum(Struct, frozen=True):
    """What the bytes of one request hash to. `algorithm` is a name of hashlib."""

    algorithm: str
    digest: bytes


class Uploads:
    """The uploads in one store.

    Args:
        store: where they are.
        life: how long one may take, and stays when it is complete.
        quota: how much of them one client may have.
    """

    def __init__(self, store: ArtifactStore, life: timedelta, quota: Quota | None = None) -> None:
        self._store, self._life, self._quota = store, life, quota or Quota()
        self._beginning: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def create(self, client_id: str, size_bytes: int, filename: str, metadata: str = "") -> Upload:
        """Begin an upload.

        Gateways that begin uploads of one client at the same moment do not see each other's: each may let in one more
        than the quota allows.

        Raises:
            QuotaReached: see above.
        """
        upload = Upload(
            upload_id=uuid7(),
            client_id=client_id,
            size_bytes=size_bytes,
            filename=filename,
            metadata=metadata,
            created_at=timestamp(),
        )
        async with self._beginning.setdefault(client_id, asyncio.Lock()):
            await self._require_room(client_id, size_bytes)
            await self._store.put(f"{_prefix(client_id, upload.upload_id)}info", msgspec.json.encode(upload))
        return upload

    async def _require_room(self, client_id: str, size_bytes: int) -> None:
        count, total_bytes = 0, 0
        async for info in self._store.list(_root(client_id)):
            *_, upload_id, name = info.object_key.split("/")
            if name == "info":
                with suppress(UploadNotFound):
                    count, total_bytes = count + 1, total_bytes + (await self.find(client_id, upload_id)).size_bytes
        if count + 1 > self._quota.count or total_bytes + size_bytes > self._quota.size_bytes:
            raise QuotaReached(self._quota, count, total_bytes)

    async def find(self, client_id: str, upload_id: str) -> Upload:
        """The client's upload.

        Raises:
            UploadNotFound: there is none.
        """
        try:
            async with self._store.open(f"{_prefix(client_id, upload_id)}info") as info:
                upload = msgspec.json.decode(b"".join([chunk async for chunk in info.chunks]), type=Upload)
        except ObjectNotFound:
            raise UploadNotFound from None
        if self.expires_at(upload) <= datetime.now(UTC):
            raise UploadNotFound
        return upload

    def expires_at(self, upload: Upload) -> datetime:
        """From when on it is gone."""
        return moment(upload.created_at) + self._life

    async def offset(self, upload: Upload) -> int:
        """How many of its bytes have arrived."""
        return sum(piece.size_bytes for piece in await self._pieces(upload))

    async def append(self, upload: Upload, offset: int, body: AsyncIterator[bytes], announced_bytes: int = 0) -> int:
        """Store what arrives, also of a body that breaks off; the new offset.

        Nothing is kept of a body that has announced more bytes than there is room for.

        Raises:
            OffsetConflict, UploadTooLong: see above.
        """
        await self._expect(upload, offset, announced_bytes)
        gathered = bytearray()
        try:
            async for chunk in body:
                if offset + len(gathered) + len(chunk) > upload.size_bytes:
                    raise UploadTooLong
                gathered += chunk
                if len(gathered) >= PIECE_BYTES:
                    piece, gathered = bytes(gathered), bytearray()
                    await self._keep(upload, offset, piece)
                    offset += len(piece)
        finally:
            if gathered:
                await to_the_end(self._keep(upload, offset, bytes(gathered)))
        return offset + len(gathered)

    async def append_verified(
        self, upload: Upload, offset: int, body: AsyncIterator[bytes], announced_bytes: int, checksum: Checksum
    ) -> int:
        """Store a whole body if it has `checksum`, else nothing of it; the new offset.

        Raises:
            OffsetConflict, UploadTooLong, ChecksumMismatch: see above.
        """
        await self._expect(upload, offset, announced_bytes)
        digest = hashlib.new(checksum.algorithm, usedforsecurity=False)
        async with self._store.writer(_piece_key(upload, offset)) as writer:
            async for chunk in body:
                if offset + writer.size_bytes + len(chunk) > upload.size_bytes:
                    raise UploadTooLong
                digest.update(chunk)
                await writer.write(chunk)
            if digest.digest() != checksum.digest:
                raise ChecksumMismatch
            if writer.size_bytes:
                try:
                    await writer.commit()
                except ObjectExists:
                    raise OffsetConflict from None
        return offset + writer.size_bytes

    async def content(self, upload: Upload) -> AsyncGenerator[bytes, None]:
        """What has arrived, from the beginning."""
        for piece in await self._pieces(upload):
            async with self._store.open(piece.object_key) as download:
                async for chunk in download.chunks:
                    yield chunk

    async def remove(self, upload: Upload) -> None:
        """End it: first nobody finds it any more, then its bytes go."""
        await self._remove(_prefix(upload.client_id, upload.upload_id))

    async def sweep(self, apart: Apart = nullcontext) -> int:
        """Remove what is past its life, also what a crash has left of it; how many uploads that was.

        Each one is removed within `apart`, which may keep its failure from the others.
        """
        removed, seen = 0, ""
        async for info in self._store.list(ROOT):
            prefix, _, _ = info.object_key.rpartition("/")
            if prefix != seen:
                seen = prefix
                if self._is_past(prefix.rpartition("/")[2]):
                    async with apart(prefix):
                        await self._remove(f"{prefix}/")
                        removed += 1
        return removed

    def _is_past(self, upload_id: str) -> bool:
        try:
            return made_at(upload_id) + self._life <= datetime.now(UTC)
        except ValueError:  # put there by somebody else
            return False

    async def _remove(self, prefix: str) -> None:
        await self._store.delete(f"{prefix}info")
        await self._store.delete_prefix(prefix)

    async def _expect(self, upload: Upload, offset: int, announced_bytes: int) -> None:
        if await self.offset(upload) != offset:
            raise OffsetConflict
        if offset + announced_bytes > upload.size_bytes:
            raise UploadTooLong

    async def _keep(self, upload: Upload, offset: int, piece: bytes) -> None:
        try:
            await self._store.put(_piece_key(upload, offset), piece)
        except ObjectExists:
            raise OffsetConflict from None

    async def _pieces(self, upload: Upload) -> list[ObjectInfo]:
        """The objects that follow on one another from the beginning; one that begins elsewhere was written in vain."""
        found = {info.object_key: info async for info in self._store.list(_prefix(upload.client_id, upload.upload_id))}
        pieces: list[ObjectInfo] = []
        offset = 0
        while piece := found.get(_piece_key(upload, offset)):
            pieces.append(piece)
            offset += piece.size_bytes
        return pieces


def _root(client_id: str) -> str:
    """Of all keys of the client, whose name may have any characters."""
    return f"{ROOT}{hashlib.sha256(client_id.encode()).hexdigest()[:32]}/"


def _prefix(client_id: str, upload_id: str) -> str:
    return f"{_root(client_id)}{upload_id}/"


def _piece_key(upload: Upload, offset: int) -> str:
    return f"{_prefix(upload.client_id, upload.upload_id)}{offset:0{OFFSET_DIGITS}d}"
