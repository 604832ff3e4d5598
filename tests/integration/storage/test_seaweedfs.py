"""The development S3 server, and a store that outlives it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import aiohttp
import psutil
import pytest

from converter.common.storage import StorageUnavailable, open_s3
from converter.devstack.seaweedfs import SOCKETS, SeaweedFs

PART = 8 << 20
MIB = 1 << 20
STREAM = """
import asyncio, re, sys
from pathlib import Path
from converter.common.storage import open_s3

def peak_mib():
    # Not ru_maxrss: it begins with the peak of the process that forked this one.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

async def main(address, key, mib):
    async with open_s3(address, "converter", access_key="test-key", secret_key="test-secret") as store:
        await store.probe()
        before = peak_mib()
        async with store.writer(key) as writer:
            for _ in range(int(mib)):
                await writer.write(bytes(1 << 20))
            stored = await writer.commit()
        async with store.open(key) as download:
            async for chunk in download.chunks:
                pass
        print(stored.size_bytes, peak_mib() - before)

asyncio.run(main(*sys.argv[1:]))
"""
ABANDON = """
import asyncio, sys
from converter.common.storage import open_s3

async def main(address, key):
    async with open_s3(address, "converter", access_key="test-key", secret_key="test-secret") as store:
        async with store.writer(key) as writer:
            await writer.write(bytes(20 << 20))
            print("written", flush=True)
            await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[SeaweedFs]:
    server = SeaweedFs(tmp_path / "own", bucket="converter", access_key="test-key", secret_key="test-secret")
    await server.start()
    yield server
    await server.kill()


async def test_a_server_killed_in_mid_upload_shows_nothing_when_it_is_back(own_server: SeaweedFs) -> None:
    async with open_s3(own_server.url, "converter", access_key="test-key", secret_key="test-secret") as store:
        kept = await store.put("kept", b"acknowledged before")

        async def upload() -> None:
            async with store.writer("lost") as writer:
                await writer.write(bytes(2 * PART))
                await own_server.kill()
                await writer.write(bytes(2 * PART))
                await writer.commit()

        with pytest.raises(StorageUnavailable) as failed:
            await upload()
        assert failed.value.address == own_server.url

        await own_server.start()
        await store.abort_stale_uploads(timedelta(seconds=-2))
        assert [upload async for upload in store.open_uploads()] == []
        assert [info.object_key async for info in store.list()] == [kept.object_key]


async def test_a_writer_that_was_killed_leaves_an_upload_that_the_janitor_ends(
    seaweedfs: SeaweedFs, prefix: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ABANDON, seaweedfs.url, prefix + "a", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"written\n"
    process.kill()
    await process.wait()

    async with open_s3(seaweedfs.url, "converter", access_key="test-key", secret_key="test-secret") as store:
        assert [upload.object_key async for upload in store.open_uploads(prefix)] == [prefix + "a"]
        assert await store.abort_stale_uploads(timedelta(seconds=-2), prefix) == 1
        assert [upload async for upload in store.open_uploads(prefix)] == []
        assert [info async for info in store.list(prefix)] == []


async def test_memory_does_not_grow_with_the_object(seaweedfs: SeaweedFs, prefix: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STREAM, seaweedfs.url, prefix + "a", "320", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    size_bytes, growth_mib = output.split()
    assert int(size_bytes) == 320 * MIB
    assert 0 < float(growth_mib) < 100


async def test_every_listener_is_on_loopback_and_asks_who_you_are(seaweedfs: SeaweedFs) -> None:
    listening = [
        connection.laddr
        for connection in psutil.Process(seaweedfs.pid).net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.ip for address in listening} == {"127.0.0.1"}
    async with aiohttp.ClientSession() as anybody:
        for path in ("", "/converter", "/converter/test"):
            async with anybody.get(seaweedfs.url + path) as response:
                assert response.status == 403
        for port in {address.port for address in listening} - {seaweedfs.port}:
            with suppress(aiohttp.ClientError):  # gRPC does not speak HTTP/1
                async with anybody.put(f"http://127.0.0.1:{port}/buckets/converter/x", data=b"x") as response:
                    assert response.status >= 400


async def test_an_ended_server_leaves_no_process_and_no_socket(tmp_path: Path) -> None:
    server = SeaweedFs(tmp_path / "own", bucket="converter", access_key="test-key", secret_key="test-secret")
    await server.start()
    pid, sockets = server.pid, listening_sockets(server.pid)
    assert sockets

    await server.stop()

    assert not psutil.pid_exists(pid)
    assert not [path for path in sockets if path.exists()]


async def test_a_start_removes_sockets_that_were_abandoned_and_no_other(tmp_path: Path) -> None:
    server = SeaweedFs(tmp_path, bucket="converter", access_key="test-key", secret_key="test-secret")
    abandoned, young, heard = (SOCKETS / f"seaweedfs-test-{uuid4().hex}.sock" for _ in range(3))
    with socket.socket(socket.AF_UNIX) as listening:
        for path in (abandoned, young):
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(str(path))
        listening.bind(str(heard))
        listening.listen()
        for path in (abandoned, heard):
            os.utime(path, (0, 0))
        try:
            await server.start()
            assert [path.exists() for path in (abandoned, young, heard)] == [False, True, True]
        finally:
            await server.stop()
            for path in (abandoned, young, heard):
                path.unlink(missing_ok=True)


def listening_sockets(pid: int) -> list[Path]:
    return [Path(str(it.laddr)) for it in psutil.Process(pid).net_connections(kind="unix") if it.laddr]


async def test_a_start_that_fails_shows_the_log(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a directory")
    server = SeaweedFs(tmp_path, bucket="converter", access_key="test-key", secret_key="test-secret")
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="seaweedfs ended with exit code") as failed:
        await server.start()
    assert "data" in str(failed.value)
    assert time.monotonic() - started < 20
