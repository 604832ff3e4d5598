"""Whoever looks is answered, and the order is kept, while CHAOS_QUEUED jobs wait (`make soak`: 10,000)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import NamedTuple

import httpx
import jobs
import pytest
import pytest_asyncio
from upstream import fetch_token
from waiting import eventually

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.identifiers import uuid7
from converter.common.settings import NatsSettings
from converter.common.topology import EVENTS, stage_durable
from converter.contracts import subjects
from converter.contracts.facts import JobCreated
from converter.contracts.job import Stage
from converter.devstack.addresses import CLIENT_ID, NATS, SCOPES
from converter.devstack.nats_server import NatsServer
from converter.devstack.stack import Stack

QUEUED = int(os.environ.get("CHAOS_QUEUED", "300"))
WITHIN_S = 60 + QUEUED / 50
ANSWER_WITHIN_S = 5.0
TAKEN, LOOKED_AT = 40, 50

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(2 * WITHIN_S + 60)]


class Queue(NamedTuple):
    """A gateway, and the waiting jobs in the order of their creation."""

    stack: Stack
    bus: Bus
    http: httpx.AsyncClient
    ids: list[str]

    async def listed(self, query: str) -> list[str]:
        answer = await self.http.get(f"{self.stack.env['INTERNAL_URL']}/jobs?{query}")
        return [job["job_id"] for job in answer.raise_for_status().json()["jobs"]]

    async def places(self, first: int) -> list[int | None]:
        """Of the jobs from `first` on."""
        urls = [f"{self.stack.gateway_urls[0]}/api/v1/jobs/{id_}" for id_ in self.ids[first : first + LOOKED_AT]]
        return [(await self.http.get(url)).raise_for_status().json()["queue_position"] for url in urls]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def queue(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Queue]:
    """Its event bus has no users, so that the test may create jobs that have no model."""
    nobody = dict.fromkeys(("onnx", "bie", "nef", "promoter"), 0)
    nats = NatsServer(tmp_path_factory.mktemp(NATS), sync_interval="1m")
    await nats.start()
    async with AsyncExitStack() as opened:
        opened.push_async_callback(nats.kill)
        replaced, settings = {"NATS_URL": nats.url}, {"API_V1_RATE_LIMIT_MAX": "1000000", "HEALTH_REFRESH_MS": "200"}
        directory = tmp_path_factory.mktemp("stack")
        stack = await opened.enter_async_context(Stack(directory, workers=nobody, settings=settings, replaced=replaced))
        bus = await opened.enter_async_context(await Bus.connect(NatsSettings(nats_url=nats.url), name="test"))
        http = await opened.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=ANSWER_WITHIN_S))
        http.headers["Authorization"] = f"Bearer {await fetch_token(http, stack.env, scope=' '.join(SCOPES))}"
        log, ids = JobLog(bus, "test"), sorted(uuid7() for _ in range(QUEUED))
        for number, job_id in enumerate(ids):
            request = jobs.request(client_id=CLIENT_ID, user_id=f"user-{number}", last_stage=Stage.ONNX)
            fact = JobCreated(at=jobs.AT, job_id=job_id, request=request, expires_at=jobs.AT)
            await log.append(job_id, lambda _, fact=fact: fact)  # type: ignore[misc]  # a default for mypy
        yield Queue(stack, bus, http, ids)


async def test_whoever_looks_is_answered(queue: Queue):
    async def all_listed() -> bool:
        return await queue.listed("limit=5") == queue.ids[:-6:-1]

    await eventually(all_listed, within_s=WITHIN_S)
    assert await queue.listed(f"limit=5&cursor={queue.ids[5]}") == queue.ids[4::-1]
    assert await queue.listed("user_id=user-7") == [queue.ids[7]]
    assert await queue.listed("status=failed") == await queue.listed("q=called-so-is-none") == []
    stats = (await queue.http.get(f"{queue.stack.env['INTERNAL_URL']}/queues/stats")).raise_for_status().json()
    assert stats["stages"]["onnx"]["pending"] == QUEUED

    async def healthy() -> bool:
        health = await queue.http.get(f"{queue.stack.gateway_urls[0]}/health")
        return bool(health.raise_for_status().json()["stages"]["onnx"]["queue_depth"] == QUEUED)

    await eventually(healthy, within_s=WITHIN_S)
    assert (await queue.http.get(f"{queue.stack.env['INTERNAL_URL']}/")).is_success


async def test_jobs_are_taken_in_the_order_of_their_creation_and_those_behind_move_up(queue: Queue):
    async def at_the_front(first: int) -> bool:
        return await queue.places(first) == list(range(1, LOOKED_AT + 1))

    await eventually(lambda: at_the_front(0), within_s=WITHIN_S)
    assert await queue.places(QUEUED - LOOKED_AT) == [None] * LOOKED_AT, "too far back to be told"
    async with queue.bus.feed(EVENTS, stage_durable(Stage.ONNX)) as feed:
        taken = [await feed.next(wait_s=5) for _ in range(TAKEN)]
    assert [subjects.job_of(delivery.subject) for delivery in taken if delivery] == queue.ids[:TAKEN]
    await asyncio.gather(*(delivery.ack() for delivery in taken if delivery))
    await eventually(lambda: at_the_front(TAKEN), within_s=WITHIN_S)
