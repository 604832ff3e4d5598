"""Uploads to the file store: `PUT <base>/files/<key>`, whole and before a deadline, or a reason why not.

    NotPromoted
    ├── FileGatewayUnavailable(why, status)    the file store refused, or cannot be reached, or took too long
    └── AuthServiceUnavailable(why)            no token is to be had, or the file store refuses the tokens

What these say reaches clients, so they name no address; the log lines do.

aiohttp, because it reads while it writes: a store may refuse a large upload before it has read it and close the
connection, and a client that looks for an answer only after its last byte finds a reset in place of the 401.
"""

from __future__ import annotations

import asyncio
import base64
import random
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from urllib.parse import quote

import aiohttp
import structlog
from aiohttp.connector import AddrInfoType
from yarl import URL

from converter.common import tracing
from converter.common.oauth import TokenSource, TokenUnavailable
from converter.promoter.upload import TooLate, Upload, UploadBody

log = structlog.get_logger()

SCOPE = "files:upload.write"
RETRY_PAUSES_S = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Before each further try; together long enough for the store to be started again."""
PATIENCE_S = 60.0
"""How long the store may take over one chunk, and over its answer."""
SEND_BUFFER_BYTES = 256 << 10
"""What the kernel may hold: it can no longer be kept back, and its way counts as the store's time to answer."""
LONGEST_ANSWER_S = 5.0
"""How long before the deadline the last chunk must go, where the deadline is far away."""
PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
"""Refusals that another time may not meet."""


class NotPromoted(Exception):
    """The file store has not said that it has the bytes. `again`: another try may go better."""

    code: str

    def __init__(self, why: str, *, again: bool) -> None:
        super().__init__(why)
        self.why, self.again = why, again


class FileGatewayUnavailable(NotPromoted):
    """The fault lies with the file store or the way to it; `status` is what it answered, if it did."""

    code = "file_gateway_unavailable"

    def __init__(self, why: str, *, status: int | None = None, again: bool) -> None:
        super().__init__(why, again=again)
        self.status = status


class AuthServiceUnavailable(NotPromoted):
    """There is no token that the file store takes."""

    code = "auth_service_unavailable"


class FileStore:
    """The company's File Access Agent.

    Args:
        http: see `open_file_store`.
        base_url: what stands before `/files/`.
        tokens: of the scope `SCOPE`.
        patience_s: how long the store may take over one chunk, and over its answer.
        retry_pauses_s: the longest pause before each further try.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        base_url: str,
        tokens: TokenSource,
        *,
        patience_s: float,
        retry_pauses_s: Sequence[float],
    ) -> None:
        self._http, self._base_url, self._tokens = http, base_url.rstrip("/"), tokens
        self._patience_s, self._retry_pauses_s = patience_s, retry_pauses_s

    async def put(self, upload: Upload) -> None:
        """Upload; returns when the store has said that it has the bytes.

        A refused token is replaced once. Server errors, resets and stalls are tried again, a bounded number of times
        and never past the deadline. When the store took the bytes and only its answer was lost, the next try puts the
        same bytes under the same key.

        Raises:
            FileGatewayUnavailable: a refusal, or no success in time.
            AuthServiceUnavailable: no token, or a fresh token was refused too.
            StorageError: the artifact cannot be read, or is not what was recorded; the store was not given all of it.
            Exception: whatever `upload.wanted` raises; the store was not given all of it.
        """
        answer_s = min(LONGEST_ANSWER_S, upload.remaining_s / 10)
        pauses_s = iter(self._retry_pauses_s)
        while True:
            try:
                return await self._try(upload, answer_s)
            except NotPromoted as failure:
                pause_s = next(pauses_s, None)
                if not failure.again or pause_s is None or pause_s >= upload.remaining_s:
                    raise
                log.warning("upload.retried", base_url=self._base_url, why=failure.why, cause=repr(failure.__cause__))
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing

    async def _try(self, upload: Upload, answer_s: float) -> None:
        """One try, with a second token if the first is refused."""
        try:
            # A time-out that has passed still lets the first step begin, so this is asked by itself.
            if upload.remaining_s <= 0:
                raise TooLate
            async with asyncio.timeout(upload.remaining_s):
                token = await self._tokens.token()
                status = await self._send(upload, token, answer_s)
                if status == HTTPStatus.UNAUTHORIZED:
                    self._tokens.drop(token)
                    status = await self._send(upload, await self._tokens.token(), answer_s)
        except TokenUnavailable as error:
            raise AuthServiceUnavailable(f"no token for the file store: {error.why}", again=error.transient) from error
        except (TooLate, TimeoutError) as error:
            raise FileGatewayUnavailable("not done before the promotion's deadline", again=False) from error
        if status == HTTPStatus.UNAUTHORIZED:
            raise AuthServiceUnavailable("the file store refused a fresh token", again=False)
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise FileGatewayUnavailable(
                f"the file store {_said(status)}", status=status, again=status >= HTTPStatus.INTERNAL_SERVER_ERROR
            )

    async def _send(self, upload: Upload, token: str, answer_s: float) -> int:
        """The status that the store answers."""
        body: UploadBody | None = None
        patience_s = self._patience_s
        try:
            async with (
                upload.open() as download,
                asyncio.timeout(patience_s) as patience,
                UploadBody(upload, download, answer_s=answer_s, patience=patience, patience_s=patience_s) as body,
                # A redirect is not followed: it would carry the token to an address that nobody configured.
                self._http.put(
                    self._url(upload), data=body, headers=_headers(upload, token), allow_redirects=False
                ) as response,
            ):
                status = response.status
        except aiohttp.ClientError as error:
            if body and body.failure:
                raise body.failure from error
            raise FileGatewayUnavailable("the connection to the file store failed", again=True) from error
        except TimeoutError as error:
            why = f"the file store did nothing for {patience_s:g} s"
            raise FileGatewayUnavailable(why, again=True) from error
        if status < HTTPStatus.MULTIPLE_CHOICES and not body.complete:
            raise FileGatewayUnavailable("the file store answered before it had all bytes", status=status, again=True)
        return status

    def _url(self, upload: Upload) -> URL:
        segments = upload.target_object_key.split("/")
        if {"", ".", ".."} & set(segments):  # they have no encoding that every server would leave alone
            raise FileGatewayUnavailable("no path of the file store: it has an empty, . or .. segment", again=False)
        path = "/".join(quote(segment, safe="") for segment in segments)
        return URL(f"{self._base_url}/files/{path}", encoded=True)


def _said(status: int) -> str:
    if status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in PASSING:
        return f"refused the upload with {status}; the same again will not help"
    return f"answered {status}"


def _headers(upload: Upload, token: str) -> dict[str, str]:
    artifact = upload.artifact
    digest = base64.b64encode(bytes.fromhex(artifact.sha256)).decode()
    return {
        "Authorization": f"Bearer {token}",
        "Content-Length": str(artifact.size_bytes),
        "Content-Type": artifact.media_type,
        "Content-Digest": f"sha-256=:{digest}:",  # RFC 9530
        **tracing.carried(),
    }


@asynccontextmanager
async def open_file_store(
    base_url: str,
    tokens: TokenSource,
    *,
    patience_s: float = PATIENCE_S,
    retry_pauses_s: Sequence[float] = RETRY_PAUSES_S,
) -> AsyncIterator[FileStore]:
    """The file store at `base_url`; its connections end with the context."""
    # Each upload has a connection of its own: on a kept one aiohttp repeats a request whose body is half spent.
    connector = aiohttp.TCPConnector(force_close=True, socket_factory=_socket)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as http:
        yield FileStore(http, base_url, tokens, patience_s=patience_s, retry_pauses_s=retry_pauses_s)


def _socket(address: AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return opened
