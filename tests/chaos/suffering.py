"""Jobs that run while something is full."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path

import httpx
from upstream import fetch_token
from waiting import eventually

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.contracts.job import JobRecord
from converter.devstack import demo
from converter.devstack.addresses import SCOPES
from converter.devstack.stack import Stack

from .clients import Client
from .observer import Ledger, left_wrong

FULL_S = 3.0


async def answer(client: httpx.AsyncClient, stack: Stack) -> tuple[int, str]:
    """What a user is told who posts a model now."""
    token = await fetch_token(client, stack.env, scope=" ".join(SCOPES))
    said = await client.post(
        f"{stack.gateway_urls[0]}/api/v1/jobs",
        data=demo.FIELDS | {"user_id": f"asking-{secrets.token_hex(4)}", "targets": "onnx"},
        files=[("model", ("digits.onnx", (demo.DATA / "digits_cnn.onnx").read_bytes()))],
        headers={"Authorization": f"Bearer {token}"},
    )
    return said.status_code, (said.json().get("error") or {}).get("code", "")


async def suffer(
    stack: Stack, directory: Path, seed: int, fault: AbstractAsyncContextManager[None], told: set[tuple[int, str]]
) -> None:
    """Run jobs, let `fault` begin among them and last until a user was `told`, and for a while; then judge."""
    with closing(Ledger(directory / "ledger")) as ledger:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http, asyncio.TaskGroup() as users:
            client = Client(stack, http, ledger, seed)

            async def has_begun() -> bool:
                return bool(ledger.accepted)

            async def is_told() -> bool:
                return await answer(http, stack) in told

            for user in range(3):
                users.create_task(client.one_after_the_other(f"full{seed}{user}", 2))
            await eventually(has_begun, within_s=60)
            async with fault:
                await eventually(is_told, within_s=90)
                await asyncio.sleep(FULL_S)
        assert len(ledger.accepted) == 6
        wrong = await left_wrong(stack, ledger, within_s=120)
        assert not wrong
        kinds = await ends(stack.bus, ledger)
        assert kinds <= {"completed", "stage_out_of_disk"}, kinds


async def ends(bus: Bus, ledger: Ledger) -> set[str]:
    """How the jobs ended: `completed`, or the code of the error."""
    found = set()
    for job_id in ledger.accepted:
        state = await JobLog(bus, "test").read(job_id)
        assert isinstance(state, JobRecord)
        found.add(state.error.code if state.error else str(state.status))
    return found
