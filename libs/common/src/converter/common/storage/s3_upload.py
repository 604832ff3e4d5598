"""Objects on their way to an S3 server."""

from __future__ import annotations

import asyncio
import secrets
import zlib
from base64 import b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress

from converter.common.storage import s3_messages
from converter.common.storage.port import BucketMissing, ObjectExists, ObjectNotFound, StorageUnavailable
from converter.common.storage.s3_transport import Answer, Declined, Transport
from converter.common.unbroken import to_the_end

PART_BYTES = 5 << 20
"""S3 takes parts from 5 MiB, up to 10,000: objects up to 48 GiB. Each upload holds about five of them in memory."""
PARTS_IN_FLIGHT = 2
"""Keeps the line busy while the next part fills; every part more costs its size twice (here and in the socket)."""
WRITE_ONCE = {"If-None-Match": "*"}
WRITE_ID = "x-amz-meta-write-id"
COMPLETE_ATTEMPTS = 3


class Publication:
    """One attempt to make an object visible under a key, recognised by a random id in its metadata.

    Answers do not settle whether it worked. One may be lost; its repetition then finds the key taken, by ourselves.
    CompleteMultipartUpload and CopyObject may carry an error under status 200 (their API references say so). And
    SeaweedFS 4.48 tells each of two racing completions that it won. So what is visible afterwards decides.
    """

    def __init__(self, transport: Transport, key: str, media_type: str) -> None:
        self._transport, self._key = transport, key
        self._id = secrets.token_hex(8)
        self.headers = {"Content-Type": media_type, WRITE_ID: self._id}

    async def is_visible(self) -> bool:
        """Whether the key holds this publication.

        Raises:
            ObjectExists: it holds another.
        """
        try:
            found = await self._transport.call("HEAD", self._key)
        except ObjectNotFound:
            return False
        if found.headers.get(WRITE_ID) != self._id:
            raise ObjectExists(self._key)
        return True

    async def settle(self, request: Callable[[], Awaitable[Answer]]) -> None:
        """Make `request`, again after an error under status 200, until the object is visible.

        Raises:
            ObjectExists: the key holds another object.
            ObjectNotFound: what `request` copies from is not there.
            StorageUnavailable: the object is not visible, or nobody can say.
        """
        for _ in range(COMPLETE_ATTEMPTS):
            try:
                answer = await request()
            except (Declined, BucketMissing):
                raise
            except (ObjectExists, StorageUnavailable):
                if not await self.is_visible():
                    raise
                return
            if await self.is_visible():
                return
        raise StorageUnavailable(self._transport.address, f"not stored, said under status 200: {answer.body[:200]!r}")

    async def withdraw(self) -> None:
        """Delete the object if it is ours and visible."""
        with suppress(ObjectExists):
            if await self.is_visible():
                await self._transport.call("DELETE", self._key)


class S3Upload:
    """An object as one PUT while it fits a part, else as a multipart upload with `PARTS_IN_FLIGHT` at a time."""

    def __init__(self, transport: Transport, key: str, media_type: str) -> None:
        self._transport, self._key = transport, key
        self._publication = Publication(transport, key, media_type)
        self._buffer = bytearray()
        self._upload_id: str | None = None
        self._slots = asyncio.Semaphore(PARTS_IN_FLIGHT)
        self._parts: list[asyncio.Task[str]] = []
        """Part 1, 2, 3 …, whose results are their ETags; in order by construction."""
        self._published = False

    async def write(self, data: bytes) -> None:
        """Take `data`; waits while `PARTS_IN_FLIGHT` parts are on their way and the next is full."""
        rest = memoryview(data)
        while rest:
            room = PART_BYTES - len(self._buffer)
            self._buffer += rest[:room]
            rest = rest[room:]
            if len(self._buffer) == PART_BYTES:
                await self._send_part()

    async def _send_part(self) -> None:
        if self._upload_id is None:
            # Cut off between question and answer, the upload would stay open: nobody would know its id.
            await to_the_end(self._begin())
        await self._slots.acquire()
        for part in self._parts:
            if part.done():
                part.result()  # raises what made it fail
        body, self._buffer = self._buffer, bytearray()
        self._parts.append(asyncio.create_task(self._send(len(self._parts) + 1, body)))

    async def _begin(self) -> None:
        answer = await self._transport.call("POST", self._key, headers=self._publication.headers, query={"uploads": ""})
        self._upload_id = self._transport.read(answer, s3_messages.initiated)

    async def _send(self, number: int, body: bytearray) -> str:
        try:
            answer = await self._transport.call(
                "PUT", self._key, body=body, query={"partNumber": str(number), "uploadId": self._upload_id or ""}
            )
        finally:
            self._slots.release()
        if "ETag" not in answer.headers:
            raise StorageUnavailable(self._transport.address, f"part not stored: {answer.body[:200]!r}")
        return answer.headers["ETag"]

    async def publish(self) -> None:
        """Send what is left and make the object visible.

        Raises:
            ObjectExists: the key is taken.
            StorageUnavailable: a part or the end failed.
        """
        if self._upload_id is None:
            await self._put()
            return
        if self._buffer:
            await self._send_part()
        etags = await asyncio.gather(*self._parts)
        self._published = True
        await self._publication.settle(
            lambda: self._transport.call(
                "POST",
                self._key,
                body=s3_messages.completion(etags),
                headers={"Content-Type": "application/xml", **WRITE_ONCE},
                query={"uploadId": self._upload_id or ""},
            )
        )

    async def _put(self) -> None:
        self._published = True
        try:
            # SeaweedFS does not hold the body to the digest that signs it. A part cannot carry this: AWS wants it
            # announced with the upload.
            whole = {"x-amz-checksum-crc32": b64encode(zlib.crc32(self._buffer).to_bytes(4, "big")).decode()}
            headers = {**self._publication.headers, **WRITE_ONCE, **whole}
            await self._transport.call("PUT", self._key, body=self._buffer, headers=headers)
        except (Declined, BucketMissing):
            raise
        except (ObjectExists, StorageUnavailable):
            if not await self._publication.is_visible():
                raise

    async def discard(self) -> None:
        """End what is on its way, abort the multipart upload, and take back what was published."""
        for part in self._parts:
            part.cancel()
        await asyncio.gather(*self._parts, return_exceptions=True)
        if self._upload_id is not None:
            await abort(self._transport, self._key, self._upload_id)
        if self._published:
            await self._publication.withdraw()


async def abort(transport: Transport, key: str, upload_id: str) -> None:
    """Abort a multipart upload; one that is gone is no error."""
    try:
        await transport.call("DELETE", key, query={"uploadId": upload_id})
    except Declined as refusal:
        if refusal.code != "NoSuchUpload":
            raise
