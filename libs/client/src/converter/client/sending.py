"""Sends orders, as multipart forms that are read while they are sent.

A model that the gateway already has is not sent again; a large one goes first, in an upload that is continued where it
broke (`uploading`).
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from converter.client.errors import InvalidRequest, Refused
from converter.client.gateway import Gateway
from converter.client.resources import Job, Order, Verdict
from converter.client.uploading import Sent, Unfinished, chunks, unheard, upload
from converter.client.wire import Body, Run

RESUMABLE_FROM_BYTES = 16 * 1024 * 1024
"""A smaller model is sent again as fast as it is continued."""
_JOBS = "/api/v1/jobs"


class _Part(Struct, frozen=True):
    """One part of a form: its head, and a file or a value."""

    head: bytes
    content: Path | bytes
    size_bytes: int


class Form:
    """A `multipart/form-data` body (RFC 7578) of constant memory; fields first, so that a bad one is refused early."""

    def __init__(self, fields: list[tuple[str, str]], files: list[tuple[str, Path]]) -> None:
        self._boundary = uuid.uuid4().hex
        self._parts = [self._part(f'name="{name}"', value.encode(), len(value.encode())) for name, value in fields]
        self._parts += [self._part(_file_head(name, file), file, file.stat().st_size) for name, file in files]

    def body(self, sent: Sent) -> Body:
        """The body; its files are read anew for each try."""
        end = f"--{self._boundary}--\r\n".encode()
        total = sum(len(part.head) + part.size_bytes + 2 for part in self._parts) + len(end)

        async def read(run: Run) -> AsyncGenerator[bytes, None]:
            given = 0
            for part in self._parts:
                yield part.head
                if isinstance(part.content, bytes):
                    yield part.content
                else:
                    async with aclosing(chunks(run, part.content)) as pieces:
                        async for piece in pieces:
                            yield piece
                            given += len(piece)
                            sent(given, total)
                yield b"\r\n"
            yield end
            sent(total, total)

        return Body(f"multipart/form-data; boundary={self._boundary}", total, read)

    def _part(self, disposition: str, content: Path | bytes, size_bytes: int) -> _Part:
        head = f"--{self._boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"
        return _Part(head.encode(), content, size_bytes)


def _file_head(name: str, file: Path) -> str:
    # As browsers write it: what would end the quotes or the line is percent-encoded.
    filename = file.name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    return f'name="{name}"; filename="{filename}"\r\nContent-Type: application/octet-stream'


async def submit(gateway: Gateway, order: Order, key: str | None, sent: Sent, unfinished_in: Path | None) -> Job:
    """A new job, or the one that was made with `key` before.

    Raises:
        ConverterError: there is none.
        OSError: a file cannot be read.
    """
    key = key or str(uuid.uuid4())
    digest = await gateway.wire.run(_sha256, order.model)
    size_bytes = order.model.stat().st_size
    fields = [*fields_of(order), ("model_sha256", digest)]
    images = [("ref_images", image) for image in order.images]
    # A gateway that does not have the model gets the images twice: only worth it while they are smaller.
    if size_bytes > sum(image.stat().st_size for image in order.images):
        try:
            return await _create(gateway, Form(fields, images), key, unheard)
        except Refused as refusal:
            if not _needs_the_file(refusal):
                raise
    if size_bytes < RESUMABLE_FROM_BYTES:
        return await _create(gateway, Form(fields, [*images, ("model", order.model)]), key, sent)
    unfinished = await gateway.wire.run(Unfinished, unfinished_in, gateway.url, order.model, digest)
    try:
        upload_id = await upload(gateway, order.model, sent, unfinished)
        job = await _create(gateway, Form([*fields, ("model_upload_id", upload_id)], images), key, unheard)
        await gateway.wire.run(unfinished.forget)
        return job
    finally:
        unfinished.close()


async def dry_run(gateway: Gateway, order: Order, sent: Sent) -> Verdict:
    """Check `order` without making a job of it; nothing is kept.

    Raises:
        ConverterError: its fields are bad, or there is no answer.
        OSError: a file cannot be read.
    """
    files = [*(("ref_images", image) for image in order.images), ("model", order.model)]
    body = Form(fields_of(order), files).body(sent)
    return await gateway.ask(gateway.call("POST", _JOBS, params={"dry_run": "true"}, body=body), Verdict)


async def _create(gateway: Gateway, form: Form, key: str, sent: Sent) -> Job:
    return await gateway.ask(gateway.call("POST", _JOBS, headers={"Idempotency-Key": key}, body=form.body(sent)), Job)


def _needs_the_file(refusal: Refused) -> bool:
    """Whether the model is not known by its digest, or the key was first used with a form that carried it."""
    unknown = isinstance(refusal, InvalidRequest) and refusal.code == "invalid_multipart" and "model" in refusal.fields
    return unknown or refusal.code == "idempotency_mismatch"


def fields_of(order: Order) -> list[tuple[str, str]]:
    """The form's fields for `order`, files aside."""
    fields: list[tuple[str, str]] = [
        ("user_id", order.user_id),
        ("platform", order.platform),
        ("model_id", str(order.model_id)),
        ("version", order.version),
    ]
    for name, shape in order.input_shape.items():
        sizes = ",".join(map(str, shape))
        fields.append(("input_shape", f"{name}:{sizes}" if name else sizes))
    if order.preprocess is not None:
        fields.append(("preprocess", _text(order.preprocess)))
    if order.quantization is not None:
        fields.append(("quantization", _text(order.quantization)))
    if order.targets is not None:
        fields.append(("targets", order.targets))
    return fields


def _text(value: str | Mapping[str, Any]) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
