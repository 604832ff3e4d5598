"""A disk is full while jobs run: callers are told, nothing is lost, and jobs go on by themselves."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio

from converter.common.settings import StorageSettings, load
from converter.common.storage import StorageUnavailable, open_store
from converter.devstack.seaweedfs import SeaweedFs
from converter.devstack.stack import Stack

from .clients import SWEPT
from .disks import filled, small_disk
from .keeping import looked_after
from .suffering import suffer

pytestmark = [
    pytest.mark.root,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
    # nats-py leaves the socket of a connection to the garbage collector that a server ends while it is being made.
    pytest.mark.filterwarnings("ignore:.*StreamWriter:pytest.PytestUnraisableExceptionWarning"),
]


DATABASE_FULL = re.compile("filerldb2/.*no space left on device")


class System(NamedTuple):
    """The stack, its object storage, and where the three disks are."""

    stack: Stack
    server: SeaweedFs
    nats: Path
    storage: Path
    work: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    places = {name: tmp_path_factory.mktemp("disks") / name for name in ("nats", "storage", "work")}
    async with AsyncExitStack() as opened:
        for place in places.values():
            await opened.enter_async_context(small_disk(place, 96))
        watching = asyncio.Event()
        watching.set()
        programs = tmp_path_factory.mktemp("bin")
        bus = await opened.enter_async_context(looked_after(places["nats"] / "data", programs, watching))
        keys = {"access_key": secrets.token_hex(8), "secret_key": secrets.token_hex(16)}
        directory = tmp_path_factory.mktemp("seaweedfs")  # its log does not share the disk of its data
        (directory / "data").symlink_to(places["storage"])
        server = SeaweedFs(directory, bucket="converter", **keys)
        await server.start()
        opened.push_async_callback(server.kill)
        replaced = {
            "NATS_URL": bus.url,
            "MINIO_ENDPOINT_URL": server.url,
            "MINIO_BUCKET": server.bucket,
            "MINIO_ACCESS_KEY": server.access_key,
            "MINIO_SECRET_KEY": server.secret_key,
        }
        settings = {
            "API_V1_RATE_LIMIT_MAX": "1000000",
            "STAGE_ACK_WAIT_S": "1.5",
            "CLAIM_GRACE_S": "2",
            "WORK_DIR": str(places["work"]),
            **SWEPT,
        }
        directory = tmp_path_factory.mktemp("stack")
        stack = await opened.enter_async_context(Stack(directory, settings=settings, replaced=replaced))
        yield System(stack, server, **places)


@asynccontextmanager
async def full_nats(system: System) -> AsyncIterator[None]:
    with filled(system.nats):
        yield


@asynccontextmanager
async def full_storage(system: System, new_directories: int = 0) -> AsyncIterator[None]:
    """The server has taken room in advance, which is used up first.

    Where one of its databases has met the full disk, it is started again once there is room: see docs/durability.md.
    Each of `new_directories` has it write to one of them.
    """
    async with open_store(load(StorageSettings, system.stack.variables)) as store:
        with filled(system.storage):
            with suppress(StorageUnavailable):
                while True:
                    await store.put(f"ballast/{secrets.token_hex(8)}", secrets.token_bytes(1 << 20))
            for _ in range(new_directories):
                with suppress(StorageUnavailable):
                    await store.put(f"ballast/{secrets.token_hex(8)}/one", b"x")
            yield
    if DATABASE_FULL.search(system.server.log.read_text()):
        await system.server.kill()
        await system.server.start()


@asynccontextmanager
async def full_work_directory(system: System) -> AsyncIterator[None]:
    with filled(system.work):
        yield


async def test_jobs_go_on_by_themselves_after_the_disk_of_the_event_bus_was_full(
    system: System, tmp_path: Path
) -> None:
    await suffer(system.stack, tmp_path, 2, full_nats(system), {(503, "event_bus_unavailable")})


async def test_jobs_go_on_by_themselves_after_the_storage_was_full(system: System, tmp_path: Path) -> None:
    await suffer(system.stack, tmp_path, 3, full_storage(system), {(502, "storage_unavailable"), (507, "storage_full")})


async def test_jobs_go_on_after_a_storage_whose_directories_met_the_full_disk_was_started_again(
    system: System, tmp_path: Path
) -> None:
    fault = full_storage(system, new_directories=60)
    await suffer(system.stack, tmp_path, 5, fault, {(502, "storage_unavailable"), (507, "storage_full")})
    assert DATABASE_FULL.search(system.server.log.read_text())


async def test_jobs_go_on_by_themselves_after_the_work_directory_was_full(system: System, tmp_path: Path) -> None:
    await suffer(system.stack, tmp_path, 4, full_work_directory(system), {(201, "")})
