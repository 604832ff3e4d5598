"""Files of any size, sent to the gateway and to the S3 server behind it by one client in pieces of one size."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
from gateway_stack import FIELDS, access_token, good
from miniopy_async.api import Minio

from converter.common.storage.s3_transport import REGION
from converter.devstack.demo import DATA
from converter.devstack.stack import Stack

MEGABYTE = 1_000_000
PIECE = base64.b64encode(os.urandom(MEGABYTE * 3 // 4))
"""Text, as the documentation of a model is, that does not compress into nothing."""
BOUNDARY = secrets.token_hex(16)
"""As long as those that aiohttp, curl and browsers make: what is searched for takes the longer the shorter it is."""
_VARINT_MAX = 0x7F


class Client:
    """One process's HTTP connections to the gateway and to the S3 server of a stack."""

    def __init__(self, stack: Stack, http: aiohttp.ClientSession, token: str) -> None:
        env = stack.env
        self._http, self._gateway, self._bucket = http, env["GATEWAY_URL"], env["S3_BUCKET"]
        self._authorised = {"Authorization": f"Bearer {token}"}
        # It signs addresses; the requests are ours.
        self._s3 = Minio(
            urlsplit(env["S3_ENDPOINT"]).netloc, env["S3_ACCESS_KEY"], env["S3_SECRET_KEY"], secure=False, region=REGION
        )

    async def post(self, megabytes: float) -> str:
        """The id of a new job of a new user, with a model of this size."""
        before, after = _form()
        head, pieces = _model(megabytes)
        size_bytes = len(before) + len(head) + sum(map(len, pieces)) + len(after)
        headers = {
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
            "Content-Length": str(size_bytes),
            **self._authorised,
        }
        body = _sent([before, head, *pieces, after])
        async with self._http.post(f"{self._gateway}/api/v1/jobs", data=body, headers=headers) as answer:
            return str((await good(answer))["job_id"])

    async def put(self, megabytes: float) -> str:
        """The key of a new object of this size, written by one PUT."""
        key, pieces = f"direct/{secrets.token_hex(8)}", _pieces(megabytes)
        url = await self._s3.get_presigned_url("PUT", self._bucket, key)
        headers = {"Content-Length": str(sum(map(len, pieces)))}
        async with self._http.put(url, data=_sent(pieces), headers=headers) as answer:
            answer.raise_for_status()
        return key

    async def link(self, job_id: str) -> str:
        """Where what the job's first stage has made can be fetched."""
        url = f"{self._gateway}/api/v1/jobs/{job_id}/download-tokens"
        async with self._http.post(url, json={"source": "onnx"}, headers=self._authorised) as answer:
            path = (await good(answer))["url"]
        return f"{self._gateway}{path}"

    async def signed(self, key: str) -> str:
        """Where the object can be fetched from the S3 server."""
        return str(await self._s3.get_presigned_url("GET", self._bucket, key))

    async def get(self, url: str, byte_range: str | None = None) -> int:
        """How many bytes came."""
        headers = {"Range": f"bytes={byte_range}"} if byte_range else {}
        async with self._http.get(url, headers=headers) as answer:
            answer.raise_for_status()
            return sum([len(chunk) async for chunk in answer.content.iter_any()])


@asynccontextmanager
async def connected(stack: Stack) -> AsyncIterator[Client]:
    """A client of the stack."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600), read_bufsize=1 << 20) as http:
        yield Client(stack, http, await access_token(stack))


def _pieces(megabytes: float) -> list[bytes]:
    whole = int(megabytes)
    rest = PIECE[: round((megabytes - whole) * MEGABYTE)]
    return [PIECE] * whole + ([rest] if rest else [])


def _model(megabytes: float) -> tuple[bytes, list[bytes]]:
    """A real model up to the documentation (`ModelProto.doc_string`, field 6) that ends it, and that."""
    pieces = _pieces(megabytes)
    left, length = sum(map(len, pieces)), bytearray()
    while left > _VARINT_MAX:
        length.append(left & _VARINT_MAX | 0x80)
        left >>= 7
    return (DATA / "digits_cnn.onnx").read_bytes() + b"\x32" + bytes([*length, left]), pieces


def _form() -> tuple[bytes, bytes]:
    """The request's body before the model and after it."""
    fields = {"user_id": f"user-{secrets.token_hex(8)}", **FIELDS}
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    file = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="model"; filename="m.onnx"\r\n\r\n'
    return "".join([*parts, file]).encode(), f"\r\n--{BOUNDARY}--\r\n".encode()


async def _sent(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
