"""A worker that is frozen past `ack_wait` and wakes after another has done its work changes nothing any more."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from waiting import eventually

from converter.common.background import background
from converter.devstack.stack import Stack

from .clients import SWEPT, Client
from .observer import Ledger, left_wrong

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

SLEEPER, OTHER = "stage-bie.1", "stage-bie.2"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    settings = {"API_V1_RATE_LIMIT_MAX": "1000000", "STAGE_ACK_WAIT_S": "1.5", "CLAIM_GRACE_S": "2", **SWEPT}
    async with Stack(tmp_path_factory.mktemp("stack"), workers={"bie": 2}, settings=settings) as running:
        yield running


@pytest.mark.parametrize(
    ("seed", "step"), list(enumerate(["after:start", "before:store", "before:publish", "before:ack"]))
)
async def test_a_worker_that_slept_while_another_did_its_work_is_fenced(
    stack: Stack, tmp_path: Path, seed: int, step: str
) -> None:
    await asyncio.gather(stack.kill(SLEEPER), stack.kill(OTHER))
    await stack.start(SLEEPER, env={"FAILPOINT": f"{step}:SIGSTOP"})

    async def asleep() -> bool:
        return Path(f"/proc/{stack.pids[SLEEPER]}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    async def keep_awake() -> None:
        while True:
            stack.send_signal(SLEEPER, signal.SIGCONT)
            await asyncio.sleep(0.1)

    with closing(Ledger(tmp_path / "ledger")) as ledger:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            client = Client(stack, http, ledger, seed)
            first = asyncio.create_task(client.convert("first", step, "nef"))
            await eventually(asleep, within_s=60)
            await stack.start(OTHER)
            _, status = await first
            assert status == "completed"
            # It takes one job at a time, so when it has done another it is through with the first.
            await stack.kill(OTHER)
            async with background(keep_awake):
                _, status = await client.convert("second", f"{step}-again", "bie")
            assert status == "completed"
        wrong = await left_wrong(stack, ledger)
        assert not wrong
