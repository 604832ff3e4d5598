"""Messages that come twice, late, in another order, malformed, or from a later release change nothing that holds.

CHAOS_MESSAGES says how many are sent once more (`make soak`).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families
from upstream import fetch_token
from waiting import eventually

from converter.common.background import background
from converter.common.identifiers import uuid7
from converter.devstack.addresses import SCOPES
from converter.devstack.stack import Stack

from .clients import SWEPT, Client
from .observer import Ledger, history, left_wrong
from .senders import FEEDS, Senders

MESSAGES = int(os.environ.get("CHAOS_MESSAGES", "300"))
USERS = 3
JOBS_EACH = max(2, MESSAGES // 500)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240 + MESSAGES // 5)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    settings = {"API_V1_RATE_LIMIT_MAX": "1000000", "STAGE_ACK_WAIT_S": "1.5", "CLAIM_GRACE_S": "2", **SWEPT}
    async with Stack(tmp_path_factory.mktemp("stack"), workers={"gateway": 2}, settings=settings) as running:
        yield running


async def test_no_message_has_an_effect_twice_and_none_stands_in_the_way(stack: Stack, tmp_path: Path) -> None:
    senders, created = Senders(stack, seed=1), asyncio.Queue[str]()

    async def heard(subject: str, _payload: bytes) -> None:
        created.put_nowait(subject.split(".")[2])

    async def meddle() -> None:
        """With each job as soon as it is there."""
        seen = set[str]()
        while True:
            if (job_id := await created.get()) not in seen:
                seen.add(job_id)
                await senders.no_events(job_id)
                await senders.of_a_later_release(job_id)
            created.task_done()

    with closing(Ledger(tmp_path / "ledger")) as ledger:
        async with AsyncExitStack() as open_, httpx.AsyncClient(trust_env=False, timeout=30) as http:
            await open_.enter_async_context(senders.connected())
            async with (
                stack.bus.hear("converter.v1.*.job.created", heard),
                background(meddle, *(partial(senders.hand_back, service) for service in FEEDS)),
            ):
                client = Client(stack, http, ledger, seed=1)
                async with asyncio.TaskGroup() as users:
                    for user in range(USERS):
                        users.create_task(client.one_after_the_other(f"user{user}", JOBS_EACH))
                    users.create_task(senders.again(MESSAGES))
                await created.join()
            # Also where nothing comes after: behind the end of a job, and where there is no job.
            ended = next(iter(ledger.accepted))
            for job_id in (ended, uuid7()):
                await senders.no_events(job_id)
            await eventually(partial(everything_set_aside, stack, http, senders), within_s=30)
            assert senders.sent_again == MESSAGES
            assert senders.handed_back
            await every_gateway_says_what_the_log_says(stack, http, ledger)
        wrong = await left_wrong(stack, ledger)
        assert not wrong


async def everything_set_aside(stack: Stack, http: httpx.AsyncClient, senders: Senders) -> bool:
    """Whether each service counts as many messages that it rejected as it was brought that are no event."""
    rejected = {service: await counted(stack, http, service) for service in FEEDS}
    return rejected == senders.malformed


async def counted(stack: Stack, http: httpx.AsyncClient, service: str) -> float:
    """How many messages the service has rejected, as its metrics tell."""
    lines = [json.loads(line) for line in (stack.directory / "logs" / f"{service}.log").read_text().splitlines()]
    [port] = [line["port"] for line in lines if line.get("face") == "metrics"]
    page = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "converter_messages_total" and sample.labels["outcome"] == "rejected"
    )


async def every_gateway_says_what_the_log_says(stack: Stack, http: httpx.AsyncClient, ledger: Ledger) -> None:
    """One has kept a copy all the while, the other is new and reads the log."""
    await stack.kill("api-gateway.2")
    await stack.start("api-gateway.2")
    bearer = {"Authorization": f"Bearer {await fetch_token(http, stack.env, scope=' '.join(SCOPES))}"}
    for job_id, user in ledger.accepted.items():
        told = [await http.get(f"{url}/api/v1/jobs/{job_id}", headers=bearer) for url in stack.gateway_urls]
        assert told[0].json() == told[1].json()
        assert told[0].headers["etag"] == told[1].headers["etag"]
        last = (await history(stack.bus, job_id))[-1].job
        assert last is not None
        assert (told[0].json()["status"], last["receipt"]) == (last["status"], "kept")
        listed = await http.get(f"{stack.gateway_urls[0]}/api/v1/jobs", params={"user_id": user}, headers=bearer)
        assert job_id in {job["job_id"] for job in listed.json()["items"]}
    shown = (await http.get(f"{stack.env['INTERNAL_URL']}/jobs", params={"limit": "100"})).json()["jobs"]
    assert ledger.accepted.keys() <= {job["job_id"] for job in shown}
