"""Jobs come to their end while the object storage is away, stands still, crawls, fails, or hangs up in mid-body."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import pytest_asyncio
from faults import Proxy
from waiting import eventually

from converter.common.background import background
from converter.devstack.loopback import origin
from converter.devstack.seaweedfs import SeaweedFs
from converter.devstack.stack import Stack

from .clients import SWEPT, Client
from .observer import Ledger, left_wrong

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

FAULT_S = 2.0
CRAWL_BYTES_PER_S = 1_000


class Storage(NamedTuple):
    """A server, and the way to it that everything takes."""

    server: SeaweedFs
    way: Proxy

    @asynccontextmanager
    async def down(self) -> AsyncIterator[None]:
        await self.server.kill()
        self.way.cut()
        yield
        await self.server.start()

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        self.server.send_signal(signal.SIGSTOP)
        yield
        self.server.send_signal(signal.SIGCONT)

    @asynccontextmanager
    async def slow(self) -> AsyncIterator[None]:
        self.way.bytes_per_s = CRAWL_BYTES_PER_S
        yield
        self.way.bytes_per_s = None

    @asynccontextmanager
    async def failing(self) -> AsyncIterator[None]:
        self.way.change_answers = (b"HTTP/1.1 200 OK", b"HTTP/1.1 503 NO")
        yield
        self.way.change_answers = (b"", b"")

    @asynccontextmanager
    async def hanging_up(self) -> AsyncIterator[None]:
        async def keep_cutting() -> None:
            while True:
                await asyncio.sleep(0.02)
                self.way.cut()

        async with background(keep_cutting):
            yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def storage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Storage]:
    keys = {"access_key": secrets.token_hex(8), "secret_key": secrets.token_hex(16)}
    server = SeaweedFs(tmp_path_factory.mktemp("s3"), bucket="converter", **keys)
    await server.start()
    async with Proxy(server.port) as way:
        yield Storage(server, way)
    await server.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory, storage: Storage) -> AsyncIterator[Stack]:
    settings = {"API_V1_RATE_LIMIT_MAX": "1000000", "STAGE_ACK_WAIT_S": "1.5", "CLAIM_GRACE_S": "2", **SWEPT}
    replaced = {
        "MINIO_ENDPOINT_URL": origin(storage.way.port),
        "MINIO_BUCKET": storage.server.bucket,
        "MINIO_ACCESS_KEY": storage.server.access_key,
        "MINIO_SECRET_KEY": storage.server.secret_key,
    }
    async with Stack(tmp_path_factory.mktemp("stack"), settings=settings, replaced=replaced) as running:
        yield running


@pytest.mark.parametrize(("seed", "fault"), list(enumerate(["down", "frozen", "slow", "failing", "hanging_up"])))
async def test_jobs_come_to_their_end_although_the_storage_is(
    storage: Storage, stack: Stack, tmp_path: Path, seed: int, fault: str
) -> None:
    with closing(Ledger(tmp_path / "ledger")) as ledger:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http, asyncio.TaskGroup() as users:
            client = Client(stack, http, ledger, seed)
            going = [users.create_task(client.one_after_the_other(f"{fault}{user}", 2)) for user in range(3)]

            async def accepted() -> bool:
                return bool(ledger.accepted)

            await eventually(accepted, within_s=30)  # so that stages meet the fault, and not posts alone
            async with getattr(storage, fault)():
                await asyncio.wait(going, timeout=FAULT_S)
        assert len(ledger.accepted) == 6
        wrong = await left_wrong(stack, ledger)
        assert not wrong
