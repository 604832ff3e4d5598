"""Resumable uploads over each kind of storage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from converter.common.identifiers import uuid7
from converter.common.storage import ArtifactStore
from converter.gateway.uploads import PIECE_BYTES, OffsetConflict, UploadNotFound, Uploads, UploadTooLong

CONTENT = bytes(range(256)) * (2 * PIECE_BYTES // 256) + b"the end"


class Broken(Exception):
    """The connection is gone."""


async def body(content: bytes, *, breaks: bool = False) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 65536):
        yield content[start : start + 65536]
    if breaks:
        raise Broken


async def test_an_upload_that_broke_goes_on_elsewhere_and_is_whole(store: ArtifactStore):
    one, another = Uploads(store, timedelta(hours=1)), Uploads(store, timedelta(hours=1))
    upload = await one.create(client_id := uuid7(), len(CONTENT), "m.onnx")
    cut = PIECE_BYTES + 12_345
    with pytest.raises(Broken):
        await one.append(upload, 0, body(CONTENT[:cut], breaks=True))
    found = await another.find(client_id, upload.upload_id)
    assert found == upload
    assert await another.offset(found) == cut
    with pytest.raises(OffsetConflict):
        await one.append(upload, PIECE_BYTES, body(b"late"))
    with pytest.raises(UploadTooLong):
        await another.append(found, cut, body(CONTENT[cut:] + b"x"))
    offset = await another.offset(found)
    assert await another.append(found, offset, body(CONTENT[offset:])) == len(CONTENT)
    assert b"".join([chunk async for chunk in one.content(upload)]) == CONTENT
    await one.remove(upload)
    with pytest.raises(UploadNotFound):
        await another.find(client_id, upload.upload_id)


async def test_another_client_finds_nothing(store: ArtifactStore):
    uploads = Uploads(store, timedelta(hours=1))
    upload = await uploads.create(uuid7(), 5, "m.onnx")
    with pytest.raises(UploadNotFound):
        await uploads.find("other", upload.upload_id)
    await uploads.remove(upload)
