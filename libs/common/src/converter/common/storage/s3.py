"""Objects in a bucket of an S3 server: MinIO, SeaweedFS, AWS."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import quote

import aiohttp

from converter.common.storage import s3_messages
from converter.common.storage.port import (
    ByteRange,
    Download,
    ObjectInfo,
    ObjectNotFound,
    OpenUpload,
    RangeNotSatisfiable,
    StorageUnavailable,
)
from converter.common.storage.s3_messages import Page
from converter.common.storage.s3_transport import Declined, Transport
from converter.common.storage.s3_upload import WRITE_ONCE, Publication, S3Upload, abort

T = TypeVar("T")
_CONTENT_RANGE = re.compile(r"bytes \d+-\d+/(\d+)")


class S3Backend:
    """See `Backend`.

    Tested against SeaweedFS. `copy` refuses a taken key where the server knows conditional copies, and replaces it
    elsewhere; `open_uploads` finds what the server lists for a prefix, which on some servers is nothing: those have to
    end stale uploads by a rule of their own.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def address(self) -> str:
        """The server's URL."""
        return self._transport.address

    def upload(self, key: str, media_type: str) -> S3Upload:
        """Begin an object; nothing is sent before a part is full."""
        return S3Upload(self._transport, key, media_type)

    @asynccontextmanager
    async def open(self, key: str, byte_range: ByteRange | None) -> AsyncIterator[Download]:
        """Read an object, or a range of it."""
        response = await self._get(key, byte_range)
        try:
            size_bytes = response.content_length
            if size_bytes is None:
                raise StorageUnavailable(self.address, "a download without Content-Length")
            total_bytes = size_bytes
            if byte_range is not None:
                content_range = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
                if content_range is None:
                    raise StorageUnavailable(self.address, "a range was asked for and not given")
                total_bytes = int(content_range[1])
            async with aclosing(self._transport.chunks(response)) as chunks:
                yield Download(size_bytes, total_bytes, chunks)
        finally:
            response.close()  # with it the connection, unless all of it has been read

    async def _get(self, key: str, byte_range: ByteRange | None) -> aiohttp.ClientResponse:
        if byte_range is None:
            return await self._transport.get(key, {})
        last = "" if byte_range.last is None else byte_range.last
        try:
            return await self._transport.get(key, {"Range": f"bytes={byte_range.first}-{last}"})
        except Declined as refusal:
            if refusal.code == "InvalidRange":
                raise RangeNotSatisfiable(key, byte_range) from None
            raise

    async def stat(self, key: str) -> ObjectInfo:
        """What the server says of an object."""
        answer = await self._transport.call("HEAD", key)
        try:
            return ObjectInfo(
                key, int(answer.headers["Content-Length"]), parsedate_to_datetime(answer.headers["Last-Modified"])
            )
        except (KeyError, ValueError) as fault:
            raise StorageUnavailable(self.address, f"unreadable headers: {fault!r}") from fault

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete up to 1,000 objects in one request."""
        body = s3_messages.deletion(keys)
        md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        answer = await self._transport.call("POST", body=body, headers={"Content-MD5": md5}, query={"delete": ""})
        deleted, why_not = self._transport.read(answer, s3_messages.deleted)
        if deleted != len(keys):
            raise StorageUnavailable(self.address, f"deleted {deleted} objects of {len(keys)}, not {why_not}")

    async def copy(self, source: str, target: str, media_type: str) -> None:
        """Copy on the server's side, up to 5 GiB."""
        publication = Publication(self._transport, target, media_type)
        headers = {
            **publication.headers,
            **WRITE_ONCE,
            "x-amz-copy-source": quote(f"/{self._transport.bucket}/{source}"),
            "x-amz-metadata-directive": "REPLACE",  # the publication's id, not the source's
        }
        try:
            await publication.settle(lambda: self._transport.call("PUT", target, headers=headers))
        except ObjectNotFound:
            raise ObjectNotFound(source) from None

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Every object whose key begins with `prefix`."""
        return self._listed(s3_messages.objects, {"list-type": "2", "prefix": prefix})

    def open_uploads(self, prefix: str) -> AsyncIterator[OpenUpload]:
        """Every unfinished multipart upload whose key begins with `prefix`."""
        return self._listed(s3_messages.uploads, {"uploads": "", "prefix": prefix})

    async def abort_upload(self, upload: OpenUpload) -> None:
        """Abort a multipart upload."""
        await abort(self._transport, upload.object_key, upload.upload_id)

    async def _listed(self, page_of: Callable[[str], Page[T]], query: dict[str, str]) -> AsyncIterator[T]:
        following: dict[str, str] | None = {}
        while following is not None:
            answer = await self._transport.call("GET", query={**query, **following})
            page = self._transport.read(answer, page_of)
            for entry in page.entries:
                yield entry
            following = page.following
