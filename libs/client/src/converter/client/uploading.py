"""A model on its way with tus 1.0 (https://tus.io/protocols/resumable-upload), continued where it broke.

Within a process that is where a connection broke; with a directory to remember it in, also where a process ended.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, aclosing, suppress
from pathlib import Path
from typing import IO
from urllib.parse import quote

from converter.client.errors import Conflict, NotFound, NotTheContract
from converter.client.gateway import Gateway
from converter.client.patience import TROUBLES
from converter.client.wire import CHUNK_BYTES, Body, Run

Sent = Callable[[int, int], None]
"""Told how many bytes of how many have been given to the connection; after a break it may go back."""

REMEMBERED_S = 7 * 86400.0
"""For how long an unfinished upload is remembered; the gateway forgets it sooner."""
_TUS = {"Tus-Resumable": "1.0.0"}
_UPLOADS = "/api/v1/uploads"


def unheard(_sent: int, _total: int) -> None:
    """Ignore the progress."""


class Unfinished:
    """Remembers the upload of one file to one gateway until a job has it.

    It belongs to the process that opens it first: another one that sends the same file meanwhile begins its own upload.
    Where it cannot be read or written, an upload that broke off with its process begins anew.

    Args:
        directory: has a small file for each; without it nothing is remembered.
        url: the gateway's.
        file: whose name the upload carries.
        digest: sha256 of the file.
    """

    def __init__(self, directory: Path | None, url: str, file: Path, digest: str) -> None:
        self._stack = ExitStack()
        self._kept: IO[str] | None = None
        if directory:
            named = hashlib.sha256(f"{url}\n{file.name}\n{digest}".encode()).hexdigest()
            with suppress(OSError, ImportError):
                self._kept = self._open(directory / named)

    def _open(self, path: Path) -> IO[str]:
        import fcntl  # noqa: PLC0415 - there is none on Windows, where nothing is remembered

        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for other in path.parent.iterdir():
            if other.stat().st_mtime < time.time() - REMEMBERED_S:
                other.unlink()
        opened = self._stack.enter_context(path.open("a+"))
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however that ends
        return opened

    def upload_id(self) -> str | None:
        """The upload that was begun, if one is remembered."""
        with suppress(OSError, UnicodeDecodeError):
            if self._kept:
                self._kept.seek(0)
                return self._kept.read() or None
        return None

    def remember(self, upload_id: str) -> None:
        """Remember the upload that was begun."""
        with suppress(OSError):
            if self._kept:
                self._kept.truncate(0)
                self._kept.write(upload_id)
                self._kept.flush()

    def forget(self) -> None:
        """Forget the upload: a job has it."""
        with suppress(OSError):
            if self._kept:
                Path(self._kept.name).unlink()

    def close(self) -> None:
        """Let other processes have it."""
        self._stack.close()


async def upload(gateway: Gateway, file: Path, sent: Sent, unfinished: Unfinished) -> str:
    """Send `file`, continuing from where the gateway has it whenever the connection breaks.

    Returns:
        The upload's id, for one job.

    Raises:
        ConverterError: it cannot be sent.
        OSError: it cannot be read.
    """
    size_bytes = file.stat().st_size
    upload_id, offset = await _begun(gateway, file, size_bytes, unfinished)
    path, patience = _path(upload_id), gateway.patience()
    while offset < size_bytes:
        sent(offset, size_bytes)
        try:
            async with gateway.sent(
                gateway.call(
                    "PATCH",
                    path,
                    headers={**_TUS, "Upload-Offset": str(offset)},
                    body=_rest(file, offset, size_bytes, sent),
                )
            ) as answer:
                offset = int(answer.headers["upload-offset"])
                continue
        except TROUBLES as problem:
            # On a mismatch the offset is asked for at once: bytes of the broken request were still arriving.
            if not (isinstance(problem, Conflict) and problem.code == "upload_offset_mismatch"):
                await patience.after(problem)
        has = await _offset(gateway, upload_id)
        if has > offset:
            patience.renew()
        offset = has
    return upload_id


async def _begun(gateway: Gateway, file: Path, size_bytes: int, unfinished: Unfinished) -> tuple[str, int]:
    """The upload to send `file` in, and how much of it is there already."""
    remembered = await gateway.wire.run(unfinished.upload_id)
    if remembered:
        with suppress(NotFound):  # a job has taken it, or it is past its time
            return remembered, await _offset(gateway, remembered)
    name = base64.b64encode(file.name.encode()).decode()
    head = {**_TUS, "Upload-Length": str(size_bytes), "Upload-Metadata": f"filename {name}"}
    begun = await gateway.whole(gateway.call("POST", _UPLOADS, headers=head))
    upload_id = str(begun.headers.get("location", "")).rpartition("/")[2]
    if not upload_id:
        raise NotTheContract(_UPLOADS, "no Location")
    await gateway.wire.run(unfinished.remember, upload_id)
    return upload_id, 0


async def _offset(gateway: Gateway, upload_id: str) -> int:
    # By GET: tus asks by HEAD, whose refusal has no body that would tell an upload that is gone from another server.
    answer = await gateway.whole(gateway.call("GET", _path(upload_id), headers=_TUS))
    return int(answer.headers["upload-offset"])


def _path(upload_id: str) -> str:
    return f"{_UPLOADS}/{quote(upload_id, safe='')}"


def _rest(file: Path, offset: int, size_bytes: int, sent: Sent) -> Body:
    async def read(run: Run) -> AsyncGenerator[bytes, None]:
        given = offset
        async with aclosing(chunks(run, file, offset)) as pieces:
            async for piece in pieces:
                yield piece
                given += len(piece)
                sent(given, size_bytes)

    return Body("application/offset+octet-stream", size_bytes - offset, read)


async def chunks(run: Run, file: Path, offset: int = 0) -> AsyncGenerator[bytes, None]:
    """The bytes of `file` from `offset` on."""
    opened = await run(file.open, "rb")
    try:
        await run(opened.seek, offset)
        while chunk := await run(opened.read, CHUNK_BYTES):
            yield chunk
    finally:
        opened.close()
