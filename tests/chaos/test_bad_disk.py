"""The event bus's disk fails to flush while jobs run: writes are refused, readiness says so, nothing is lost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import httpx
import pytest
from waiting import eventually

from converter.devstack.stack import Stack

from .clients import SWEPT, Client
from .keeping import looked_after
from .observer import Ledger, left_wrong

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    # nats-py leaves the socket of a connection to the garbage collector that a server ends while it is being made.
    pytest.mark.filterwarnings("ignore:.*StreamWriter:pytest.PytestUnraisableExceptionWarning"),
]

SETTINGS = {"API_V1_RATE_LIMIT_MAX": "1000000", "STAGE_ACK_WAIT_S": "3", "CLAIM_GRACE_S": "2", **SWEPT}


@asynccontextmanager
async def failing_flushes(pid: int) -> AsyncIterator[None]:
    """Every fsync of the process fails with EIO, without reaching the disk."""
    tracer = await asyncio.create_subprocess_exec(
        *("strace", "-f", "-q", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"),
        *("-e", "inject=fsync,fdatasync:error=EIO", "-p", str(pid)),
    )

    async def traced() -> bool:
        return f"TracerPid:\t{tracer.pid}\n" in Path(f"/proc/{pid}/status").read_text()

    try:
        await eventually(traced)
        yield
    finally:
        tracer.send_signal(signal.SIGTERM)
        await tracer.wait()


async def test_a_disk_that_cannot_flush_is_told_and_loses_nothing(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    watching = asyncio.Event()
    async with (
        looked_after(tmp_path / "nats", programs, watching) as server,
        Stack(tmp_path / "stack", settings=SETTINGS, replaced={"NATS_URL": server.url}) as stack,
    ):
        with closing(Ledger(tmp_path / "ledger")) as ledger:
            async with httpx.AsyncClient(trust_env=False, timeout=30) as http, asyncio.TaskGroup() as users:
                client = Client(stack, http, ledger, seed=1)

                async def is_ready() -> bool:
                    return (await http.get(f"{stack.gateway_urls[0]}/health/ready")).status_code == 200

                async def is_not_ready() -> bool:
                    return not await is_ready()

                for user in range(3):
                    users.create_task(client.one_after_the_other(f"user{user}", 3))
                async with failing_flushes(server.pid):
                    await eventually(is_not_ready, within_s=90)
                watching.set()
                await eventually(is_ready, within_s=90)
            assert len(ledger.accepted) == 9
            wrong = await left_wrong(stack, ledger, within_s=120)
            assert not wrong
