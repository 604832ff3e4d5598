"""What holds for objects wherever they are kept: every test runs over S3 and over a directory."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from converter.common.storage import (
    ArtifactCorrupt,
    ArtifactStore,
    BucketMissing,
    ByteRange,
    InvalidKey,
    ObjectExists,
    ObjectNotFound,
    RangeNotSatisfiable,
    open_local,
)
from converter.contracts.job import StoredObject

MIB = 1 << 20
PART = 8 * MIB


async def content(store: ArtifactStore, key: str, byte_range: ByteRange | None = None) -> bytes:
    async with store.open(key, byte_range) as download:
        found = b"".join([chunk async for chunk in download.chunks])
        assert len(found) == download.size_bytes
        return found


async def keys(store: ArtifactStore, prefix: str) -> set[str]:
    return {info.object_key async for info in store.list(prefix)}


async def assert_nothing_left(store: ArtifactStore, prefix: str) -> None:
    assert await keys(store, prefix) == set()
    assert [upload async for upload in store.open_uploads(prefix)] == []


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 3 * PART])
async def test_what_was_put_comes_back_with_its_size_and_digest(store: ArtifactStore, prefix: str, size: int) -> None:
    data = os.urandom(size)

    stored = await store.put(prefix + "a.bin", data)

    assert stored == StoredObject(object_key=prefix + "a.bin", size_bytes=size, sha256=hashlib.sha256(data).hexdigest())
    assert await content(store, stored.object_key) == data
    assert (await store.stat(stored.object_key)).size_bytes == size


async def test_a_file_is_put_and_fetched(store: ArtifactStore, prefix: str, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(os.urandom(2 * PART + 17))

    stored = await store.put(prefix + "file", tmp_path / "source")
    await store.fetch(stored, tmp_path / "target")

    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()


async def test_nothing_is_visible_before_the_commit(store: ArtifactStore, prefix: str) -> None:
    async with store.writer(prefix + "a") as writer:
        await writer.write(bytes(3 * PART))
        assert await keys(store, prefix) == set()
        await writer.commit()
        assert await keys(store, prefix) == {prefix + "a"}


@pytest.mark.parametrize("size", [100, 3 * PART])
async def test_a_writer_left_without_a_commit_leaves_nothing(store: ArtifactStore, prefix: str, size: int) -> None:
    async with store.writer(prefix + "a") as writer:
        await writer.write(bytes(size))

    await assert_nothing_left(store, prefix)


@pytest.mark.parametrize("size", [100, 3 * PART])
async def test_a_body_that_breaks_off_leaves_nothing(store: ArtifactStore, prefix: str, size: int) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield bytes(size)
        raise ConnectionResetError("the client is gone")

    async def receive() -> None:
        async with store.writer(prefix + "a") as writer:
            async for chunk in body():
                await writer.write(chunk)
            await writer.commit()

    with pytest.raises(ConnectionResetError):
        await receive()
    await assert_nothing_left(store, prefix)


async def test_a_cancelled_writer_leaves_nothing(store: ArtifactStore, prefix: str) -> None:
    began = asyncio.Event()

    async def endless() -> None:
        async with store.writer(prefix + "a") as writer:
            while True:
                await writer.write(bytes(MIB))
                if writer.size_bytes > 3 * PART:
                    began.set()

    task = asyncio.create_task(endless())
    await began.wait()
    while not task.done():  # again and again, while it tidies up
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    await assert_nothing_left(store, prefix)


@pytest.mark.parametrize("size", [1000, PART + 1000])
async def test_a_put_that_is_cancelled_at_any_moment_is_there_whole_or_not_at_all(
    store: ArtifactStore, prefix: str, size: int
) -> None:
    data = os.urandom(size)
    loop = asyncio.get_running_loop()
    started = loop.time()
    await store.put(prefix + "whole", data)
    usual_s = loop.time() - started
    done = {prefix + "whole"}
    for step in range(12):
        task = asyncio.create_task(store.put(f"{prefix}{step}", data))
        await asyncio.wait({task}, timeout=usual_s * step / 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            done.add(task.result().object_key)

    assert await keys(store, prefix) == done
    assert [upload async for upload in store.open_uploads(prefix)] == []


async def test_objects_are_written_once(store: ArtifactStore, prefix: str) -> None:
    await store.put(prefix + "a", b"first")

    for second in (b"second", bytes(PART + 1)):
        with pytest.raises(ObjectExists) as refused:
            await store.put(prefix + "a", second)
        assert refused.value.key == prefix + "a"

    assert await content(store, prefix + "a") == b"first"
    assert [upload async for upload in store.open_uploads(prefix)] == []


async def test_one_of_many_racing_writers_wins(store: ArtifactStore, prefix: str) -> None:
    bodies = [f"writer {number}".encode() for number in range(10)]

    outcomes = await asyncio.gather(*(store.put(prefix + "a", body) for body in bodies), return_exceptions=True)

    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, StoredObject)]
    assert all(isinstance(outcome, ObjectExists) for outcome in outcomes if outcome is not winner)
    assert hashlib.sha256(await content(store, prefix + "a")).hexdigest() == winner.sha256


async def test_a_large_object_that_is_finished_second_is_refused(store: ArtifactStore, prefix: str) -> None:
    async with store.writer(prefix + "a") as first, store.writer(prefix + "a") as second:
        await first.write(b"1" * (PART + 1))
        await second.write(b"2" * (PART + 1))
        await first.commit()
        with pytest.raises(ObjectExists):
            await second.commit()

    assert await content(store, prefix + "a") == b"1" * (PART + 1)
    assert [upload async for upload in store.open_uploads(prefix)] == []


@pytest.mark.parametrize(
    ("byte_range", "expected"),
    [
        (ByteRange(0, 0), b"0"),
        (ByteRange(2, 4), b"234"),
        (ByteRange(7), b"789"),
        (ByteRange(7, 100), b"789"),
        (ByteRange(0), b"0123456789"),
    ],
)
async def test_ranges_are_read(store: ArtifactStore, prefix: str, byte_range: ByteRange, expected: bytes) -> None:
    await store.put(prefix + "a", b"0123456789")

    async with store.open(prefix + "a", byte_range) as download:
        assert (download.size_bytes, download.total_bytes) == (len(expected), 10)
        assert b"".join([chunk async for chunk in download.chunks]) == expected


@pytest.mark.parametrize("data", [b"", b"0123456789"])
async def test_a_range_behind_the_end_is_refused(store: ArtifactStore, prefix: str, data: bytes) -> None:
    await store.put(prefix + "a", data)
    with pytest.raises(RangeNotSatisfiable):
        await content(store, prefix + "a", ByteRange(10))


@pytest.mark.parametrize("other", [b"other", b"longer than it was"], ids=["same size", "other size"])
async def test_a_fetch_of_changed_bytes_is_refused(
    store: ArtifactStore, prefix: str, tmp_path: Path, other: bytes
) -> None:
    stored = await store.put(prefix + "a", b"bytes")
    await store.delete(prefix + "a")
    await store.put(prefix + "a", other)

    with pytest.raises(ArtifactCorrupt) as corrupt:
        await store.fetch(stored, tmp_path / "a")

    assert corrupt.value.key == prefix + "a"
    assert corrupt.value.expected == f"5 bytes of sha256 {stored.sha256}"
    assert f"{len(other)} bytes" in corrupt.value.found
    assert not (tmp_path / "a").exists()


async def test_what_is_not_there_is_not_found(store: ArtifactStore, prefix: str, tmp_path: Path) -> None:
    missing = StoredObject(object_key=prefix + "none", size_bytes=1, sha256="0" * 64)
    for attempt in (
        store.stat(prefix + "none"),
        content(store, prefix + "none"),
        content(store, prefix + "none", ByteRange(1)),
        store.fetch(missing, tmp_path / "a"),
        store.copy(missing, prefix + "target"),
    ):
        with pytest.raises(ObjectNotFound) as refused:
            await attempt
        assert refused.value.key == prefix + "none"


async def test_a_prefix_is_no_object(store: ArtifactStore, prefix: str) -> None:
    await store.put(prefix + "a/b", b"1")
    with pytest.raises(ObjectNotFound):
        await store.stat(prefix + "a")
    with pytest.raises(ObjectNotFound):
        await content(store, prefix + "a")


async def test_a_prefix_is_listed_and_deleted_without_its_neighbours(store: ArtifactStore, prefix: str) -> None:
    inside = {f"{prefix}1/{name}" for name in ("a", "b/c", "b/d")}
    for key in inside | {prefix + "10/a", prefix + "2/a"}:
        await store.put(key, b"1")

    assert await keys(store, prefix + "1/") == inside
    assert await store.delete_prefix(prefix + "1/") == 3
    assert await keys(store, prefix) == {prefix + "10/a", prefix + "2/a"}
    assert await store.delete_prefix(prefix + "1/") == 0


async def test_more_objects_than_fit_one_page_are_listed_and_deleted(store: ArtifactStore, prefix: str) -> None:
    expected = {f"{prefix}{number:04}" for number in range(1003)}
    for start in range(0, 1003, 50):
        await asyncio.gather(*(store.put(key, b"") for key in sorted(expected)[start : start + 50]))

    assert await keys(store, prefix) == expected
    assert await store.delete_prefix(prefix) == 1003
    assert await keys(store, prefix) == set()


async def test_deleting_what_is_not_there_is_no_error(store: ArtifactStore, prefix: str) -> None:
    await store.put(prefix + "a", b"1")
    await store.delete(prefix + "a")
    await store.delete(prefix + "a")
    with pytest.raises(ObjectNotFound):
        await store.stat(prefix + "a")


async def test_a_copy_outlives_its_source(store: ArtifactStore, prefix: str) -> None:
    source = await store.put(prefix + "a", os.urandom(PART + 1))

    copied = await store.copy(source, prefix + "cache/b")
    await store.delete(source.object_key)

    assert (copied.size_bytes, copied.sha256) == (source.size_bytes, source.sha256)
    assert hashlib.sha256(await content(store, prefix + "cache/b")).hexdigest() == source.sha256


async def test_a_copy_replaces_nothing(store: ArtifactStore, prefix: str) -> None:
    source = await store.put(prefix + "a", b"new")
    await store.put(prefix + "b", b"old")
    with pytest.raises(ObjectExists):
        await store.copy(source, prefix + "b")
    assert await content(store, prefix + "b") == b"old"


async def test_an_object_of_another_size_than_recorded_is_not_copied(store: ArtifactStore, prefix: str) -> None:
    await store.put(prefix + "a", b"truncat")
    recorded = StoredObject(object_key=prefix + "a", size_bytes=9, sha256="0" * 64)
    with pytest.raises(ArtifactCorrupt):
        await store.copy(recorded, prefix + "b")
    assert await keys(store, prefix) == {prefix + "a"}


INVALID_KEYS = [
    "",
    "/",
    "/etc/passwd",
    "a//b",
    "a/",
    "..",
    "a/../b",
    "a/./b",
    "../a",
    ".uploads/a",
    "a\\..\\b",
    "a%2f..%2fb",
    "a\0b",
    "a\nb",
    "a b",
    "ä",
    "a,b",
    "a~b",
    "a?b",
    "a" * 201,
]


@pytest.mark.parametrize("key", INVALID_KEYS)
async def test_no_key_leads_outside(store: ArtifactStore, prefix: str, tmp_path: Path, key: str) -> None:
    source = await store.put(prefix + "a", b"1")
    outside = StoredObject(object_key=key, size_bytes=1, sha256="0" * 64)
    for attempt in (
        store.put(key, b"1"),
        content(store, key),
        store.stat(key),
        store.delete(key),
        store.fetch(outside, tmp_path / "fetched"),
        store.copy(source, key),
        store.copy(outside, prefix + "b"),
    ):
        with pytest.raises(InvalidKey):
            await attempt


@pytest.mark.parametrize("prefix", ["jobs/1", "/", "../", "a/../"])
async def test_no_prefix_means_more_than_it_says(store: ArtifactStore, prefix: str) -> None:
    with pytest.raises(InvalidKey):
        store.list(prefix)
    with pytest.raises(InvalidKey):
        await store.delete_prefix(prefix)
    with pytest.raises(ValueError, match="everything"):
        await store.delete_prefix("")


async def test_a_download_that_is_given_up_leaks_nothing(store: ArtifactStore, prefix: str) -> None:
    await store.put(prefix + "a", bytes(2 * PART))
    open_before = psutil.Process().num_fds()

    for _ in range(10):
        async with store.open(prefix + "a") as download:
            await anext(download.chunks)

    assert psutil.Process().num_fds() <= open_before


async def test_open_downloads_hold_up_nobody(store: ArtifactStore, prefix: str) -> None:
    await store.put(prefix + "a", bytes(2 * PART))
    everybody_reads = asyncio.Barrier(41)
    release = asyncio.Event()

    async def read() -> int:
        async with store.open(prefix + "a") as download:
            first = await anext(download.chunks)
            await everybody_reads.wait()
            await release.wait()
            return len(first) + sum([len(chunk) async for chunk in download.chunks])

    async with asyncio.timeout(20), asyncio.TaskGroup() as readers:
        readings = [readers.create_task(read()) for _ in range(40)]
        await everybody_reads.wait()
        await store.put(prefix + "b", bytes(PART + 1))
        release.set()
    assert {reading.result() for reading in readings} == {2 * PART}


async def test_a_broken_writer_cannot_commit(store: ArtifactStore, prefix: str) -> None:
    async with store.writer(prefix + "a") as writer:
        task = asyncio.create_task(writer.write(bytes(10 * PART)))
        await asyncio.wait({task}, timeout=0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with pytest.raises(RuntimeError):
            await writer.commit()
    await assert_nothing_left(store, prefix)


async def test_a_committed_writer_takes_no_more(store: ArtifactStore, prefix: str) -> None:
    async with store.writer(prefix + "a") as writer:
        await writer.write(b"1")
        await writer.commit()
        with pytest.raises(RuntimeError):
            await writer.write(b"2")
    assert await content(store, prefix + "a") == b"1"


async def test_unfinished_uploads_are_found_and_ended(store: ArtifactStore, prefix: str) -> None:
    async with store.writer(prefix + "a/b") as writer:
        await writer.write(bytes(2 * PART))
        (upload,) = [upload async for upload in store.open_uploads(prefix)]
        assert upload.object_key == prefix + "a/b"
        assert await store.abort_stale_uploads(timedelta(hours=1), prefix) == 0
        assert await store.abort_stale_uploads(timedelta(seconds=-2), prefix) == 1
        await assert_nothing_left(store, prefix)


async def test_a_probe_says_how_long_a_round_trip_takes_and_leaves_nothing(store: ArtifactStore) -> None:
    assert 0 < await store.probe() < 10
    assert await keys(store, "probe/") == set()


async def test_a_lost_directory_is_told_apart(tmp_path: Path) -> None:
    store = open_local(tmp_path / "objects")
    await store.put("a", b"1")
    shutil.rmtree(tmp_path / "objects")
    for attempt in (store.probe(), store.put("b", b"1"), store.stat("a"), keys(store, "")):
        with pytest.raises(BucketMissing) as missing:
            await attempt
        assert missing.value.address == str(tmp_path / "objects")
    assert not (tmp_path / "objects").exists()


async def test_of_what_is_below_a_prefix_only_the_doomed_is_deleted(store: ArtifactStore, prefix: str) -> None:
    for key in ("a", "b/1", "b/2"):
        await store.put(prefix + key, b"x")
    assert await store.delete_prefix(prefix, lambda info: info.object_key.endswith(("a", "2"))) == 2
    assert await keys(store, prefix) == {prefix + "b/1"}


async def test_a_stale_upload_is_spared_where_somebody_says_so(store: ArtifactStore, prefix: str) -> None:
    async def spared(key: str) -> bool:
        return key.endswith("mine")

    stale = timedelta(seconds=-2)
    async with store.writer(prefix + "mine") as mine, store.writer(prefix + "other") as other:
        await mine.write(bytes(PART))
        await other.write(bytes(PART))
        assert await store.abort_stale_uploads(stale, prefix, spared=spared) == 1
        assert [upload.object_key async for upload in store.open_uploads(prefix)] == [prefix + "mine"]
        assert (await mine.commit()).size_bytes == PART
