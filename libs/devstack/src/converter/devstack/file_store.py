"""The development file store: what `PUT /files/{key}` sends lies as a file `DIR/files/<key>`, whole or not at all.

    python -m converter.devstack.file_store --port 9091 --data DIR --issuer URL --jwks-url URL --audience AUDIENCE

    PUT  /files/{key}    scope files:upload.write    201 (200 where it replaced a file): {key, size_bytes, sha256}
    GET  /files/{key}    scope files:read            200, the bytes
    HEAD /files/{key}    scope files:read            200, their length and digest (RFC 9530), read from the disk now

It stands in for the company's File Access Agent on a developer's machine, listens on loopback only, and holds no file
in memory. A key that is no relative path is a 400, one that runs through a file (`a/b` beside `a`) a 409, bytes that
are not the ones that `Content-Length` or `Content-Digest` announced a 400.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import os
import uuid
from asyncio import to_thread
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx
import uvicorn
from litestar import Litestar, Request, Response, get, head, put
from litestar.datastructures import State
from litestar.exceptions import ClientException, HTTPException, NotFoundException
from litestar.logging import LoggingConfig
from litestar.response import File

from converter.devstack.bearer import BearerCheck, Refused
from converter.devstack.loopback import HOST
from converter.devstack.object_key import BadKey, object_key

WRITE, READ = "files:upload.write", "files:read"
BLOCK_BYTES = 1 << 20


class FileStore:
    """Files by key below `directory`."""

    def __init__(self, directory: Path) -> None:
        self._files, self._drafts = directory / "files", directory / "drafts"
        for part in (self._files, self._drafts):
            part.mkdir(parents=True, exist_ok=True)
        for draft in self._drafts.iterdir():  # of an upload that the end of the process cut short
            draft.unlink()

    def path(self, key: str) -> Path:
        """Where the bytes of `key` lie, if they do."""
        return self._files / key

    async def put(self, key: str, body: AsyncIterator[bytes], expected: Announced) -> tuple[bool, int, str]:
        """Keep `body` under `key`: whether it replaced a file, its size in bytes, and its sha256.

        Raises:
            ClientException: the bytes are not the expected ones.
            HTTPException: 409, the key runs through a file, or is a directory.
        """
        draft = self._drafts / uuid.uuid4().hex
        try:
            with await to_thread(draft.open, "wb") as file:
                size_bytes, digest = await _write(file, body)
                await to_thread(os.fsync, file.fileno())
            expected.check(size_bytes, digest)
            replaced = await to_thread(self._publish, draft, key)
        finally:
            draft.unlink(missing_ok=True)
        return replaced, size_bytes, digest.hex()

    def _publish(self, draft: Path, key: str) -> bool:
        target = self.path(key)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            replaced = target.exists()
            draft.replace(target)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise HTTPException(status_code=409, detail=f"{key} runs through a file, or is a directory") from error
        return replaced


class Announced:
    """What a request says of its body before it comes; what is absent is not checked."""

    def __init__(self, content_length: str | None, content_digest: str | None) -> None:
        self._size_bytes = int(content_length) if content_length else None
        self._content_digest = content_digest

    def check(self, size_bytes: int, sha256: bytes) -> None:
        """Raises ClientException where `size_bytes` or `sha256` differ."""
        if self._size_bytes not in {None, size_bytes}:
            raise ClientException(f"{size_bytes} bytes came, {self._size_bytes} were announced")
        for member in (self._content_digest or "").split(","):
            name, _, value = member.strip().partition("=")
            if name == "sha-256" and value != _digest_field(sha256).removeprefix("sha-256="):
                raise ClientException("the bytes do not have the digest that was announced")


def create_app(directory: Path, *, issuer: str, jwks_url: str, audience: str) -> Litestar:
    """The store of `directory` for clients with tokens that `issuer` signed for `audience`."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
            app.state.bearer = BearerCheck(http, issuer=issuer, jwks_url=jwks_url, audience=audience)
            app.state.store = FileStore(directory)
            yield

    return Litestar(
        [upload, download, look, health],
        lifespan=[lifespan],
        exception_handlers={Refused: _refusal, BadKey: _bad_key},
        request_max_body_size=None,
        openapi_config=None,
        logging_config=LoggingConfig(log_exceptions="always"),
    )


@put("/files/{key:path}", status_code=201)
async def upload(request: Request[Any, Any, Any], state: State) -> Response[dict[str, Any]]:
    """Keep the body under the key."""
    await state.bearer.require(request.headers.get("authorization"), WRITE)
    key = _key(request)
    announced = Announced(request.headers.get("content-length"), request.headers.get("content-digest"))
    replaced, size_bytes, sha256 = await state.store.put(key, request.stream(), announced)
    return Response(
        {"key": key, "size_bytes": size_bytes, "sha256": sha256},
        status_code=200 if replaced else 201,
        headers={"Location": quote(request.url.path)},
    )


@get("/files/{key:path}")
async def download(request: Request[Any, Any, Any], state: State) -> File:
    """The bytes under the key."""
    await state.bearer.require(request.headers.get("authorization"), READ)
    return File(_existing(state.store, _key(request)), media_type="application/octet-stream")


@head("/files/{key:path}")
async def look(request: Request[Any, Any, Any], state: State) -> File:
    """Length and digest of the bytes under the key."""
    await state.bearer.require(request.headers.get("authorization"), READ)
    file = _existing(state.store, _key(request))
    digest = await to_thread(_sha256, file)
    return File(file, media_type="application/octet-stream", headers={"Repr-Digest": _digest_field(digest)})


@get("/health")
async def health() -> dict[str, str]:
    """That the store serves."""
    return {"status": "healthy"}


def _key(request: Request[Any, Any, Any]) -> str:
    # As sent: what the server and the framework decoded is no longer what the client said.
    return object_key(request.scope["raw_path"].removeprefix(b"/files/"))


def _existing(store: FileStore, key: str) -> Path:
    file = store.path(key)
    if not file.is_file():
        raise NotFoundException(f"no file {key}")
    return file


async def _write(file: BinaryIO, body: AsyncIterator[bytes]) -> tuple[int, bytes]:
    """Size and sha256 of what `body` gave; a thread's trip is paid once a block, not once a packet."""
    digest, size_bytes, block = hashlib.sha256(), 0, bytearray()

    def flush() -> None:
        digest.update(block)
        file.write(block)

    async for packet in body:
        block += packet
        size_bytes += len(packet)
        if len(block) >= BLOCK_BYTES:
            await to_thread(flush)
            block.clear()
    await to_thread(flush)
    await to_thread(file.flush)
    return size_bytes, digest.digest()


def _sha256(file: Path) -> bytes:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()


def _digest_field(sha256: bytes) -> str:
    return f"sha-256=:{base64.b64encode(sha256).decode()}:"


def _refusal(_: Request[Any, Any, Any], refused: Refused) -> Response[dict[str, Any]]:
    headers = {} if refused.status == 503 else {"WWW-Authenticate": refused.challenge}  # noqa: PLR2004 - HTTP status
    body = {"status_code": refused.status, "detail": refused.description}
    return Response(body, status_code=refused.status, headers=headers)


def _bad_key(_: Request[Any, Any, Any], bad: BadKey) -> Response[dict[str, Any]]:
    return Response({"status_code": 400, "detail": str(bad)}, status_code=400)


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m converter.devstack.file_store", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True, help="directory of the files")
    parser.add_argument("--issuer", required=True, help="who must have signed a token")
    parser.add_argument("--jwks-url", required=True, help="where the issuer's keys are")
    parser.add_argument("--audience", required=True, help="whom a token must be for")
    arguments = parser.parse_args()
    app = create_app(arguments.data, issuer=arguments.issuer, jwks_url=arguments.jwks_url, audience=arguments.audience)
    uvicorn.run(app, host=HOST, port=arguments.port, timeout_graceful_shutdown=3)


if __name__ == "__main__":
    main()
