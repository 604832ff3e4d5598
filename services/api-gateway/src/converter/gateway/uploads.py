"""Resumable uploads: a model that arrives in several requests, at whatever gateway.

All of an upload lies in object storage, below `uploads/<client>/<upload id>/`: `info`, and what has arrived as objects
that are named for the offset at which they begin. Objects are written once, so two gateways that believe to continue
the same upload cannot both write one place, and what a crash takes away is at most the object that was filling.

    UploadNotFound     there is none of this client, or no longer
    OffsetConflict     the request continues elsewhere than where the upload ends
    UploadTooLong      more bytes than were announced
    ChecksumMismatch   other bytes than were announced; none of them is kept
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec
import structlog
from msgspec import Struct

from converter.common.identifiers import uuid7
from converter.common.storage import ArtifactStore, ObjectExists, ObjectInfo, ObjectNotFound, StorageError
from converter.common.storage.unbroken import to_the_end
from converter.contracts.job import Timestamp, moment, timestamp

log = structlog.get_logger()

ROOT = "uploads/"
PIECE_BYTES = 4 << 20
"""How much a gateway gathers before it stores it: what a crash can cost, and a PUT of its own for S3."""
OFFSET_DIGITS = 12


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
    """

    def __init__(self, store: ArtifactStore, life: timedelta) -> None:
        self._store, self._life = store, life

    async def create(self, client_id: str, size_bytes: int, filename: str, metadata: str = "") -> Upload:
        """Begin an upload."""
        upload = Upload(
            upload_id=uuid7(),
            client_id=client_id,
            size_bytes=size_bytes,
            filename=filename,
            metadata=metadata,
            created_at=timestamp(),
        )
        await self._store.put(f"{_prefix(client_id, upload.upload_id)}info", msgspec.json.encode(upload))
        return upload

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

    async def append(self, upload: Upload, offset: int, body: AsyncIterator[bytes]) -> int:
        """Store what arrives, also of a body that breaks off; the new offset.

        Raises:
            OffsetConflict, UploadTooLong: see above.
        """
        await self._expect(upload, offset)
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

    async def append_verified(self, upload: Upload, offset: int, body: AsyncIterator[bytes], checksum: Checksum) -> int:
        """Store a whole body if it has `checksum`, else nothing of it; the new offset.

        Raises:
            OffsetConflict, UploadTooLong, ChecksumMismatch: see above.
        """
        await self._expect(upload, offset)
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
        prefix = _prefix(upload.client_id, upload.upload_id)
        await self._store.delete(f"{prefix}info")
        await self._store.delete_prefix(prefix)

    async def sweep(self) -> int:
        """Remove what is past its life, and say how many uploads; harmless when several gateways do it at once."""
        newest: dict[str, datetime] = {}
        async for info in self._store.list(ROOT):
            prefix, _, name = info.object_key.rpartition("/")
            # Pieces without an info are what a crash has left of a removal: their own age counts.
            if name == "info" or prefix not in newest:
                newest[prefix] = info.modified_at
        expired = [prefix for prefix, at in newest.items() if at + self._life <= datetime.now(UTC)]
        for prefix in expired:
            await self._store.delete(f"{prefix}/info")
            await self._store.delete_prefix(f"{prefix}/")
        await self._store.abort_stale_uploads(self._life, ROOT)
        return len(expired)

    async def keep_swept(self, every_s: float) -> None:
        """Sweep again and again; a storage that is away is swept when it is back."""
        while True:
            await asyncio.sleep(every_s)
            try:
                if removed := await self.sweep():
                    log.info("uploads.swept", removed=removed)
            except StorageError as error:
                log.warning("uploads.not_swept", error=str(error))

    async def _expect(self, upload: Upload, offset: int) -> None:
        if await self.offset(upload) != offset:
            raise OffsetConflict

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


def _prefix(client_id: str, upload_id: str) -> str:
    """Of its objects' keys; the client's name may have any characters."""
    return f"{ROOT}{hashlib.sha256(client_id.encode()).hexdigest()[:32]}/{upload_id}/"


def _piece_key(upload: Upload, offset: int) -> str:
    return f"{_prefix(upload.client_id, upload.upload_id)}{offset:0{OFFSET_DIGITS}d}"
