"""Signed requests to an S3 server, and what their failures mean. The only module that knows the client library.

miniopy-async builds addresses and signs (AWS Signature Version 4). Of its client we use `_execute` and replace part of
`_build_headers`; both are private, so the version is pinned. Its own upload, download, session and retry code stays
out: it publishes truncated objects, takes an error under status 200 for success, drops unread answers, and lets ten
open downloads block the rest.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.typedefs import LooseHeaders
from miniopy_async.api import Minio
from miniopy_async.credentials.credentials import Credentials
from miniopy_async.error import InvalidResponseError, MinioException, S3Error, ServerError
from msgspec import Struct

from converter.common.storage.port import (
    BucketMissing,
    ObjectExists,
    ObjectNotFound,
    StorageError,
    StorageFull,
    StorageUnavailable,
)

T = TypeVar("T")

REGION = "us-east-1"
"""What MinIO and SeaweedFS take unless told otherwise; an address of AWS names its own and wins."""
TRY_AGAIN = frozenset(
    {
        *("SlowDown", "RequestTimeout", "OperationAborted", "ConditionalRequestConflict"),  # AWS asks for a repetition
        *("BadDigest", "XAmzContentSHA256Mismatch"),  # the body was damaged on its way
    }
)
"""Refusals below status 500 after which a repetition may help."""
NO_ROOM = frozenset({"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"})
"""MinIO's disks and the quota of its bucket; Ceph's quota."""
_SLICE_BYTES = 256 << 10
_SHA256_OF_NOTHING = hashlib.sha256().hexdigest()


class Timeouts(Struct, frozen=True, kw_only=True):
    """How long a server may keep us waiting, in seconds."""

    connect_s: float = 3.0
    idle_s: float = 30.0
    """Between two pieces of an answer, its head included."""
    call_s: float = 60.0
    """For a whole request with its repetitions, when its answer is small: the only limit on a server that takes a
    part slowly. A part of 5 MiB has to pass at 90 KB/s."""
    repeat_after_s: tuple[float, ...] = (0.1, 0.4)
    """The waits before each repetition: enough for a dropped connection or a moment of load. What lasts longer is for
    the caller to repeat."""


class Declined(StorageUnavailable):
    """The server understood and said no; a repetition would not help.

    Args:
        code: the S3 error code (`NoSuchUpload`, `AccessDenied`, `InvalidRange`), or `HTTP <status>` without one.
    """

    def __init__(self, address: str, why: str, code: str) -> None:
        super().__init__(address, why)
        self.code = code


class Answer(NamedTuple):
    """An answer that was read to its end."""

    headers: Mapping[str, str]
    body: bytes


class Transport:
    """Requests to one bucket. Made by `connect`."""

    def __init__(self, client: Minio, address: str, bucket: str, timeouts: Timeouts) -> None:
        self.address, self.bucket = address, bucket
        self._client, self._timeouts = client, timeouts

    async def call(
        self,
        method: str,
        key: str | None = None,
        *,
        body: bytes | bytearray | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request that may be repeated, and read its answer.

        Raises:
            ObjectNotFound, ObjectExists, BucketMissing, Declined: the server's refusal.
            StorageUnavailable: no usable answer after several attempts, or within `Timeouts.call_s`. What was asked
                may have been done.
        """

        async def answered() -> Answer:
            response = await self._send(method, key, body=body, headers=headers, query=query)
            try:
                return Answer(response.headers, await response.read())
            except (aiohttp.ClientError, OSError) as fault:
                raise self._unavailable(fault) from fault
            finally:
                response.close()

        try:
            async with asyncio.timeout(self._timeouts.call_s):
                return await self._repeated(answered)
        except TimeoutError:
            raise StorageUnavailable(self.address, f"no end to {method} in {self._timeouts.call_s:g} s") from None

    def read(self, answer: Answer, meaning: Callable[[str], T]) -> T:
        """What `answer` says in XML; raises StorageUnavailable when it is something else (a proxy's page)."""
        try:
            return meaning(answer.body.decode())
        except (ET.ParseError, ValueError) as fault:
            raise StorageUnavailable(self.address, f"unreadable answer {answer.body[:200]!r}") from fault

    async def get(self, key: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """GET an object. The caller reads the body with `chunks`, and closes the response in any case.

        Raises:
            ObjectNotFound, BucketMissing, Declined, StorageUnavailable: as `call` does.
        """
        return await self._repeated(lambda: self._send("GET", key, headers=headers))

    async def chunks(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        """The body as it arrives; raises StorageUnavailable when it stalls or ends before its Content-Length."""
        try:
            # iter_chunks gives what has arrived, read by read; everything else joins or cuts, and so copies every byte
            # once more.
            async for chunk, _ in response.content.iter_chunks():
                yield chunk
        except (aiohttp.ClientError, OSError) as fault:
            raise self._unavailable(fault) from fault

    async def _repeated(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The outcome of `attempt`, which is made again after faults that may pass."""
        for wait_s in self._timeouts.repeat_after_s:
            try:
                return await attempt()
            except (Declined, BucketMissing, StorageFull):
                raise
            except StorageUnavailable:
                await asyncio.sleep(wait_s)
        return await attempt()

    async def _send(
        self,
        method: str,
        key: str | None,
        *,
        body: bytes | bytearray | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        try:
            response: aiohttp.ClientResponse = await self._client._execute(  # noqa: SLF001 - see the module's docstring
                method,
                self.bucket,
                key,
                body=_Body(body) if body else None,  # type: ignore[arg-type]  # see `_Client`
                headers=dict(headers or {}),
                query_params=dict(query or {}),
            )
        except S3Error as fault:
            raise self._refusal(fault, key) from fault
        except (MinioException, ET.ParseError, UnicodeDecodeError) as fault:
            raise self._not_s3(fault) from fault
        except (aiohttp.ClientError, OSError) as fault:
            raise self._unavailable(fault) from fault
        return response

    def _refusal(self, fault: S3Error, key: str | None) -> StorageError:
        """What an S3 error answer means."""
        status, code = fault.response.status, fault.code or f"HTTP {fault.response.status}"
        match code:
            case "NoSuchBucket":
                return BucketMissing(self.address, f"bucket {self.bucket!r} does not exist")
            case "NoSuchKey" if key is not None:
                return ObjectNotFound(key)
            case "PreconditionFailed" if key is not None:
                return ObjectExists(key)
        why = f"{code}: {fault.message}"
        if code in NO_ROOM:
            return StorageFull(self.address, why)
        if status >= 500 or code in TRY_AGAIN:  # noqa: PLR2004 - RFC 9110 section 15.6
            return StorageUnavailable(self.address, why)
        return Declined(self.address, why, code)

    def _not_s3(self, fault: Exception) -> StorageUnavailable:
        """What an answer means that no S3 server gives: a proxy's page, a 304 that nobody asked for, broken XML."""
        match fault:
            case ServerError():
                status = fault.status_code
            case InvalidResponseError():
                status = fault._code  # noqa: SLF001 - the client has no other way to say it
            case _:
                status = 500
        why = f"HTTP {status}, {str(fault)[:200]}"
        if status >= 500 or status == 429:  # noqa: PLR2004 - RFC 9110 section 15.6, RFC 6585 section 4
            return StorageUnavailable(self.address, why)
        return Declined(self.address, why, f"HTTP {status}")

    def _unavailable(self, fault: Exception) -> StorageUnavailable:
        return StorageUnavailable(self.address, str(fault) or type(fault).__name__)


class _Body(aiohttp.Payload):
    """Bytes that go to the socket in slices, and nowhere else: as plain bytes aiohttp would join them to the head."""

    def __init__(self, data: bytes | bytearray) -> None:
        super().__init__(data)
        self._data, self._size = data, len(data)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The bytes as text."""
        return self._data.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send all of it; waits while the socket is full."""
        for start in range(0, len(self._data), _SLICE_BYTES):
            await writer.write(memoryview(self._data)[start : start + _SLICE_BYTES])

    async def sha256(self) -> str:
        """As a signature names it."""
        if len(self._data) <= _SLICE_BYTES:
            return hashlib.sha256(self._data).hexdigest()
        return (await asyncio.to_thread(hashlib.sha256, self._data)).hexdigest()


class _Client(Minio):
    async def _build_headers(  # type: ignore[override]  # it is given what `_send` gives
        self, host: str, headers: LooseHeaders | None, body: _Body | None, _creds: Credentials | None
    ) -> tuple[dict[str, str], datetime]:
        # The library would copy a body to count it, and hash it, or nothing, by 8 KiB in a thread that contends with
        # the loop for the interpreter.
        built, date = await super()._build_headers(host, headers, None, None)
        if body is None:
            built["x-amz-content-sha256"] = _SHA256_OF_NOTHING
        else:
            built["Content-Length"] = str(body.size)
            built["x-amz-content-sha256"] = await body.sha256()
        return built, date


async def _refuse_redirects(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Follow no redirect: a PUT would go on as a GET, whose 200 reads as "stored"."""
    response = await send(request)
    if response.status in {301, 302, 303, 307, 308}:
        response.close()
        where = response.headers.get("Location", "nowhere")
        raise aiohttp.ClientConnectionError(f"redirected (HTTP {response.status}) to {where}")
    return response


@asynccontextmanager
async def connect(
    endpoint_url: str, bucket: str, access_key: str, secret_key: str, timeouts: Timeouts
) -> AsyncIterator[Transport]:
    """Connections to the S3 server at `endpoint_url`, made when needed and closed with the context.

    Raises:
        ValueError: `endpoint_url` is not `http(s)://host[:port]`.
    """
    address = urlsplit(endpoint_url)
    if address.scheme not in {"http", "https"} or not address.netloc or address.path.strip("/") or address.query:
        raise ValueError(f"not the address of an S3 server: {endpoint_url!r}")
    async with aiohttp.ClientSession(
        # No limit: whoever holds downloads open would stop uploads. Callers limit their own work.
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect_s, sock_read=timeouts.idle_s),
        auto_decompress=False,  # what was stored is what is served
        middlewares=(_refuse_redirects,),
    ) as session:
        client = _Client(
            address.netloc,
            access_key,
            secret_key,
            secure=address.scheme == "https",
            region=REGION,
            session=session,
        )
        yield Transport(client, endpoint_url, bucket, timeouts)
