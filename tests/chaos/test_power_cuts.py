"""The machine of the event bus loses its power while jobs run: nothing that was acknowledged is lost.

A cut is a copy of the disk as it is at that moment, without what the kernel had still to write, on which the server is
started again (`CutDisk`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import httpx
import pytest

from converter.common.bus import Bus
from converter.common.provision import provision
from converter.common.settings import NatsSettings
from converter.common.topology import EVENTS, Tuning
from converter.devstack.nats_server import NatsServer
from converter.devstack.stack import Stack

from .clients import SWEPT, Client
from .disks import CutDisk
from .observer import Ledger, left_wrong

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

SHIPPED = Path(__file__).parents[2] / "deploy" / "nats.conf"
CUTS = 10
CUT_AFTER_S = (0.5, 4.0)
SETTINGS = {"API_V1_RATE_LIMIT_MAX": "1000000", "STAGE_ACK_WAIT_S": "3", "CLAIM_GRACE_S": "2", **SWEPT}


@asynccontextmanager
async def on_a_disk(directory: Path, sync_interval: str) -> AsyncIterator[tuple[CutDisk, NatsServer]]:
    disk = CutDisk(directory)
    async with disk.plugged():
        server = NatsServer(disk.mounted / "nats", sync_interval=sync_interval)
        await server.start()
        try:
            yield disk, server
        finally:
            await server.kill()


async def cut_power(disk: CutDisk, server: NatsServer) -> None:
    await disk.cut(server.send_signal, server.kill)
    await server.start()


async def test_a_cut_takes_what_the_server_has_not_flushed(tmp_path: Path) -> None:
    """With the server's own default: else ten cuts without a loss would say nothing."""
    async with (
        on_a_disk(tmp_path / "power", "2m") as (disk, server),
        await Bus.connect(NatsSettings(nats_url=server.url), name="test") as bus,
    ):
        await provision(bus, Tuning())
        acknowledged = 0
        for number in range(50):
            acknowledged = await bus.store(f"converter.v1.{number}.stage.started.onnx", b"x")
        await cut_power(disk, server)
        async with await Bus.connect(NatsSettings(nats_url=server.url), name="test") as again:
            streams = (await again.api("STREAM.NAMES"))["streams"] or []
            kept = await again.last_sequence(EVENTS) if EVENTS in streams else 0
        assert kept < acknowledged


async def test_ten_power_cuts_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    assert "sync_interval: always" in SHIPPED.read_text()
    async with on_a_disk(tmp_path / "power", "always") as (disk, server):
        replaced = {"NATS_URL": server.url}
        async with Stack(tmp_path / "stack", settings=SETTINGS, replaced=replaced) as stack:
            with closing(Ledger(tmp_path / "ledger")) as ledger:
                chance = random.Random(1)  # noqa: S311 - wants a seed
                for number in range(CUTS):
                    async with httpx.AsyncClient(trust_env=False, timeout=30) as http, asyncio.TaskGroup() as users:
                        client = Client(stack, http, ledger, seed=number)
                        going = [users.create_task(client.one_after_the_other(f"user{n}", 2)) for n in range(4)]
                        await asyncio.wait(going, timeout=chance.uniform(*CUT_AFTER_S))
                        await cut_power(disk, server)
                    assert len(ledger.accepted) == 8 * (number + 1)
                    wrong = await left_wrong(stack, ledger, within_s=120)
                    assert not wrong
