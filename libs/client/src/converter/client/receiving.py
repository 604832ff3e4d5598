"""Downloads: a file gets its name only once its digest is known to be the one that the job names."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import urljoin

from msgspec import Struct, structs

from converter.client.errors import DigestMismatch, NotFound, NotTheContract, Refused, Unreachable
from converter.client.gateway import Gateway, job_path, json_body, refused
from converter.client.resources import Artifact, Job, Provenance
from converter.client.uploading import Sent
from converter.client.wire import Answer, Call

_PARTIAL, _ERRORS, _UNSATISFIABLE = 206, 400, 416


File = Literal["artifact", "provenance"]
"""What a stage made, or the signed statement of how it was made."""


class Link(Struct, frozen=True):
    """Where an artifact can be fetched without a token, for a while."""

    url: str
    expires_at: str


async def link(gateway: Gateway, job_id: str, source: str | None, file: File) -> Link:
    """A link to the artifact of the stage `source` (by default the job's last), or to its provenance statement.

    Raises:
        ConverterError: there is none.
    """
    body = json_body(({"source": source} if source else {}) | ({"file": file} if file != "artifact" else {}))
    call = gateway.call("POST", job_path(job_id, "download-tokens"), body=body)
    found = await gateway.ask(call, Link)
    # A gateway that was not told its public address answers a path of its own.
    return structs.replace(found, url=urljoin(call.url, found.url))


async def download(gateway: Gateway, job_id: str, to: Path, source: str | None, file: File, received: Sent) -> Path:
    """Download an artifact, or its provenance statement, into the directory `to` under its own name, or as that file.

    Raises:
        ConverterError: there is none, or its digest is wrong (`DigestMismatch`); nothing is left of it.
        OSError: it cannot be written.
    """
    found = await link(gateway, job_id, source, file)
    job = await gateway.ask(gateway.call("GET", job_path(job_id)), Job)
    source = source or job.options.targets
    made = job.artifacts[source] if file == "artifact" else job.artifacts[source].provenance
    if made is None:
        raise NotTheContract(found.url, "a link to what the job does not have")
    target = to / _own_name(made.filename) if to.is_dir() else to
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        opened = await gateway.wire.run(part.open, "xb")
        try:
            renewed = partial(link, gateway, job_id, source, file)
            await _Download(gateway, found, renewed, made, opened, received).run()
        finally:
            opened.close()
        await gateway.wire.run(part.replace, target)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
    return target


def _own_name(filename: str) -> str:
    """The last part of `filename`: the server does not choose the directory."""
    name = filename.replace("\\", "/").rpartition("/")[2].lstrip(".")
    return name or "artifact"


class _Download:
    """One artifact on its way into an open file."""

    def __init__(
        self,
        gateway: Gateway,
        found: Link,
        renewed: Callable[[], Awaitable[Link]],
        made: Artifact | Provenance,
        file: BinaryIO,
        told: Sent,
    ) -> None:
        self._gateway, self._link, self._renewed = gateway, found, renewed
        self._artifact, self._file, self._told = made, file, told
        self._start()

    def _start(self) -> None:
        self._has, self._digest = 0, hashlib.sha256()

    async def run(self) -> None:
        """All of it, continued where it broke."""
        patience, renewed = self._gateway.patience(), False
        while self._has < self._artifact.size_bytes:
            before = self._has
            try:
                async with self._gateway.wire.send(self._call()) as answer:
                    if answer.status >= _ERRORS:
                        raise await refused(answer)
                    await self._take(answer)
                if self._has <= before:
                    raise NotTheContract(self._link.url, "no byte of the artifact that was missing")
                renewed = False
            except (Refused, Unreachable) as problem:
                if self._has > before:
                    patience.renew()
                    renewed = False
                # Where a new link has expired, too, another one would not help.
                if isinstance(problem, NotFound) and problem.code == "link_expired" and not renewed:
                    self._link, renewed = await self._renewed(), True
                    continue
                await patience.after(problem)
        if self._digest.hexdigest() != self._artifact.sha256:
            raise self._mismatch()
        await self._gateway.wire.run(os.fsync, self._file.fileno())

    def _call(self) -> Call:
        call = Call(method="GET", url=self._link.url, headers={"Accept-Encoding": "identity"})
        if not self._has:
            return call
        part = {"Range": f"bytes={self._has}-", "If-Range": f'"{self._artifact.sha256}"'}
        return structs.replace(call, headers=call.headers | part)

    async def _take(self, answer: Answer) -> None:
        if answer.status != _PARTIAL and self._has:
            await self._gateway.wire.run(self._file.seek, 0)
            await self._gateway.wire.run(self._file.truncate)
            self._start()
        async for chunk in answer.chunks:
            self._digest.update(chunk)
            self._has += len(chunk)
            if self._has > self._artifact.size_bytes:
                raise self._mismatch()
            await self._gateway.wire.run(self._file.write, chunk)
            self._told(self._has, self._artifact.size_bytes)
        await self._gateway.wire.run(self._file.flush)

    def _mismatch(self) -> DigestMismatch:
        return DigestMismatch(self._artifact.filename, self._artifact.sha256, self._digest.hexdigest())
