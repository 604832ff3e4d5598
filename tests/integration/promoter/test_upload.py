"""What an upload does at its deadline, and with storage that fails or lies."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import psutil
import pytest
from msgspec.structs import replace

from converter.common.storage import ArtifactCorrupt, ArtifactStore, Download, ObjectNotFound, StorageUnavailable
from converter.promoter.file_store import (
    FileGatewayUnavailable,
    FileStore,
    open_file_store,
)
from converter.promoter.upload import NotWanted, TooLate, Upload, UploadBody

from .conftest import PATH, Company, Exchange, Fault, Made, answering, no_answer, no_more, tokens_of


async def test_nothing_is_sent_once_the_deadline_has_passed(company: Company, file_store: FileStore, upload: Upload):
    with pytest.raises(FileGatewayUnavailable, match="deadline"):
        await file_store.put(replace(upload, deadline=datetime.now(UTC) - timedelta(milliseconds=1)))
    assert not company.uploads
    assert not company.tokens


@pytest.mark.parametrize("fault", [no_more, no_answer])
async def test_an_upload_does_not_outlive_its_deadline(
    company: Company, file_store: FileStore, upload: Upload, fault: Fault
):
    company.faults.extend([fault] * 10)
    started = time.monotonic()
    with pytest.raises(FileGatewayUnavailable, match="deadline"):
        await file_store.put(replace(upload, deadline=datetime.now(UTC) + timedelta(seconds=1)))
    assert 0.9 < time.monotonic() - started < 5
    assert not company.files


async def test_there_is_no_pause_before_a_try_that_could_only_come_too_late(company: Company, upload: Upload):
    company.faults.append(answering(503))
    started = time.monotonic()
    async with tokens_of(company) as tokens, open_file_store(company.url, tokens, retry_pauses_s=[30.0]) as file_store:
        with pytest.raises(FileGatewayUnavailable) as raised:
            await file_store.put(replace(upload, deadline=datetime.now(UTC) + timedelta(seconds=20)))
    assert raised.value.status == 503
    assert time.monotonic() - started < 10


async def test_the_last_bytes_are_kept_back_when_no_time_is_left_for_an_answer(
    company: Company, file_store: FileStore, upload: Upload, made: Made
):
    received = 0

    async def slow(exchange: Exchange) -> None:
        nonlocal received
        while chunk := await exchange.some(1 << 20):
            received += len(chunk)
            await asyncio.sleep(0.2)

    company.faults.append(slow)
    with pytest.raises(FileGatewayUnavailable, match="deadline"):
        await file_store.put(replace(upload, deadline=datetime.now(UTC) + timedelta(seconds=2)))
    assert 0 < received < len(made.content)


async def test_the_last_bytes_wait_for_no_answer_that_could_come_too_late(upload: Upload, made: Made):
    hurried = replace(upload, deadline=datetime.now(UTC) + timedelta(seconds=20))
    given = bytearray()

    async def take(body: UploadBody) -> None:
        async for chunk in body:
            given.extend(chunk)

    async with hurried.open() as download, asyncio.timeout(10) as patience:
        body = UploadBody(hurried, download, answer_s=30, patience=patience, patience_s=10)
        with pytest.raises(TooLate):
            await take(body)
    assert len(given) < len(made.content)
    assert not body.complete


async def test_the_last_bytes_are_kept_back_when_the_promotion_has_ended_meanwhile(
    company: Company, file_store: FileStore, upload: Upload
):
    async def ended() -> bool:
        return False

    with pytest.raises(NotWanted):
        await file_store.put(replace(upload, wanted=ended))
    assert not company.files


def broken_off(upload: Upload, error: Exception) -> Upload:
    """`upload`, whose bytes end with `error` half-way."""

    @asynccontextmanager
    async def open_broken() -> AsyncIterator[Download]:
        async with upload.open() as download:

            async def chunks() -> AsyncGenerator[bytes, None]:
                size_bytes = 0
                async for chunk in download.chunks:
                    yield chunk
                    size_bytes += len(chunk)
                    if size_bytes >= download.size_bytes // 2:
                        raise error

            yield replace(download, chunks=chunks())

    return replace(upload, open=open_broken)


async def test_storage_that_breaks_off_is_not_blamed_on_the_file_store(
    company: Company, file_store: FileStore, upload: Upload
):
    with pytest.raises(StorageUnavailable, match="half-way"):
        await file_store.put(broken_off(upload, StorageUnavailable("http://storage", "half-way")))
    assert not company.files


async def test_an_artifact_that_is_gone_is_not_blamed_on_the_file_store(
    company: Company, file_store: FileStore, upload: Upload, store: ArtifactStore
):
    with pytest.raises(ObjectNotFound):
        await file_store.put(replace(upload, open=lambda: store.open("jobs/1/nef/1/gone")))
    assert not company.uploads


@pytest.mark.parametrize("change", ["flipped", "shorter", "longer", "twice"])
async def test_an_artifact_that_is_not_what_was_recorded_is_never_whole_in_the_store(
    company: Company, file_store: FileStore, store: ArtifactStore, upload: Upload, made: Made, change: str
):
    content = {
        "flipped": bytes([made.content[0] ^ 1]) + made.content[1:],
        "shorter": made.content[:-1],
        "longer": made.content + b"x",
        "twice": made.content * 2,
    }[change]
    stored = await store.put(f"jobs/1/nef/2/{change}", content)
    with pytest.raises(ArtifactCorrupt):
        await file_store.put(replace(upload, open=lambda: store.open(stored.object_key)))
    assert not company.files


async def test_storage_may_be_slower_than_the_file_stores_patience(
    company: Company, impatient: FileStore, upload: Upload, made: Made
):
    @asynccontextmanager
    async def open_slowly() -> AsyncIterator[Download]:
        async def chunks() -> AsyncGenerator[bytes, None]:
            await asyncio.sleep(0.5)
            yield made.content

        yield Download(len(made.content), len(made.content), chunks())

    await impatient.put(replace(upload, open=open_slowly))
    assert len(company.uploads) == 1
    assert company.files == {PATH: made.content}


async def test_an_upload_that_is_broken_off_leaves_the_store_without_the_file(
    company: Company, file_store: FileStore, upload: Upload
):
    begun = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        begun.set()
        await exchange.some(1 << 16)
        await company.keep(exchange)

    company.faults.append(slow)
    uploading = asyncio.create_task(file_store.put(upload))
    await asyncio.wait_for(begun.wait(), 10)
    uploading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await uploading
    assert not company.files


async def test_memory_does_not_grow_with_the_artifact(
    company: Company, file_store: FileStore, store: ArtifactStore, made: Made, upload: Upload
):
    size_bytes, peak_bytes = 200 << 20, 0
    async with store.writer("jobs/1/nef/1/large") as writer:
        for _ in range(size_bytes >> 20):
            await writer.write(os.urandom(1 << 20))
        stored = await writer.commit()
    process = psutil.Process()

    async def discard(exchange: Exchange) -> None:
        nonlocal peak_bytes
        left = size_bytes
        while left:
            left -= len(await exchange.some(1 << 20))
            peak_bytes = max(peak_bytes, process.memory_info().rss)
        await exchange.answer(201)

    company.faults.append(discard)
    before = process.memory_info().rss
    large = replace(made.artifact, object_key=stored.object_key, size_bytes=size_bytes, sha256=stored.sha256)
    await file_store.put(replace(upload, artifact=large, open=lambda: store.open(stored.object_key)))
    assert peak_bytes - before < 50 << 20
