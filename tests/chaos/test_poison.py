"""Models that hang, crash, eat memory, or take their worker with them fail by themselves; the jobs behind them go on.

The models are those of tests/integration/hostile. Nothing in a conversion can reach its worker, so the one that takes
its worker with it is helped: whenever it is begun, its worker is killed, as the kernel would that has no more memory.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from integration.hostile.models import MODELS

from converter.devstack.stack import Stack

from .clients import SWEPT, Client
from .observer import Ledger, history, left_wrong

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

WORKER = "stage-onnx"
POISON = {
    "kills-its-worker": ("hours of products", "stage_crashed"),
    "hangs": ("hours of products", "stage_timeout"),
    "crashes": ("the least integer over minus one", "stage_crashed"),
    "eats-memory": ("40 doublings of a constant", "stage_out_of_memory"),
}
"""By user, the model that it sends, and the code that its job fails with."""
ATTEMPTS = 3
"""How many workers a job may take with it, when nothing else is set."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    settings = {
        "API_V1_RATE_LIMIT_MAX": "1000000",
        "STAGE_ACK_WAIT_S": "1.5",
        "CLAIM_GRACE_S": "2",
        "STAGE_TIMEOUT_S": "8",
        "STAGE_MEMORY_MB": "512",  # eaten long before time is up, also on a busy machine
        **SWEPT,
    }
    async with Stack(tmp_path_factory.mktemp("stack"), settings=settings) as running:
        yield running


async def test_poison_fails_with_its_own_code_and_the_jobs_behind_it_are_done(stack: Stack, tmp_path: Path) -> None:
    async def kill_its_worker(_subject: str, payload: bytes) -> None:
        if json.loads(payload)["job"]["request"]["user_id"] == "kills-its-worker":
            stack.send_signal(WORKER, signal.SIGKILL)

    with closing(Ledger(tmp_path / "ledger")) as ledger:
        async with (
            httpx.AsyncClient(trust_env=False, timeout=30) as http,
            stack.bus.hear("converter.v1.*.stage.started.onnx", kill_its_worker),
        ):
            client = Client(stack, http, ledger, seed=1)
            poison = {
                user: await client.post(user, user, "nef", MODELS[model]()) for user, (model, _) in POISON.items()
            }
            behind = [await client.post(f"behind-{number}", f"behind-{number}", "nef") for number in range(3)]
            ends = dict(zip(poison, await asyncio.gather(*map(client.end, poison.values())), strict=True))
            for job in await asyncio.gather(*map(client.end, behind)):
                assert job["status"] == "completed", job["error"]
        codes = {user: job["error"]["code"] for user, job in ends.items()}
        assert codes == {user: code for user, (_, code) in POISON.items()}
        starts = {
            user: Counter(message.kind for message in await history(stack.bus, job_id))["stage.started"]
            for user, job_id in poison.items()
        }
        assert starts == dict.fromkeys(POISON, 1) | {"kills-its-worker": ATTEMPTS}
        wrong = await left_wrong(stack, ledger)
        assert not wrong
