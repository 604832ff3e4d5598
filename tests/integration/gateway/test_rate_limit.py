"""The requests of a client are counted by all gateways together."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import httpx
import pytest
from waiting import eventually

from converter.common.bus import Bus
from converter.common.settings import NatsSettings
from converter.devstack.nats_server import NatsServer
from converter.gateway.clients import rate_limit
from converter.gateway.clients.rate_limit import RateLimits, Standing

from .conftest import GatewayProcess, StartGateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

ABSENT = "/api/v1/jobs/0199c1f2-0000-7000-8000-000000000001"
WINDOW_MS = 60_000
LIMIT = 96
BATCH = LIMIT // rate_limit.LEASES_PER_WINDOW


class Clock:
    """Seconds since 1970 that a test moves."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


async def statuses(gateway: GatewayProcess, client_id: str, count: int) -> Counter[int]:
    async with gateway.client(client_id=client_id) as client:
        answers = await asyncio.gather(*(client.get(ABSENT) for _ in range(count)))
    return Counter(answer.status_code for answer in answers)


async def taken(limits: RateLimits, count: int, client_id: str = "c") -> int:
    """How many of `count` requests at once are accepted."""
    return sum(standing.accepted for standing in await asyncio.gather(*(limits.take(client_id) for _ in range(count))))


async def test_three_gateways_accept_one_limit_and_another_client_has_its_own(start_gateway: StartGateway):
    variables = {"API_V1_RATE_LIMIT_MAX": str(LIMIT), "API_V1_RATE_LIMIT_WINDOW_MS": str(WINDOW_MS)}
    gateways = await asyncio.gather(*(start_gateway(**variables) for _ in range(3)))
    counts = await asyncio.gather(*(statuses(gateway, "busy", LIMIT // 2) for gateway in gateways))
    total = sum(counts, Counter())
    assert set(total) == {404, 429}
    assert LIMIT - 2 * (BATCH - 1) <= total[404] <= LIMIT
    for gateway in gateways:
        assert await statuses(gateway, "quiet", 10) == {404: 10}


async def test_every_answer_tells_an_authenticated_client_where_it_stands(start_gateway: StartGateway):
    gateway = await start_gateway(API_V1_RATE_LIMIT_MAX="3", API_V1_RATE_LIMIT_WINDOW_MS=str(WINDOW_MS))
    async with gateway.client(client_id="told") as client:
        answers = [await client.get(path) for path in ("/api/v1/jobs?user_id=a", "/api/v1/jobs", ABSENT, ABSENT)]
        assert (await client.get("/health")).headers.get("ratelimit-limit") is None
    assert [answer.status_code for answer in answers] == [200, 400, 404, 429]
    for answer, left in zip(answers, ("2", "1", "0", "0"), strict=True):
        for name, value in (("limit", "3"), ("remaining", left)):
            assert answer.headers[f"ratelimit-{name}"] == answer.headers[f"x-ratelimit-{name}"] == value
        assert 0 < int(answer.headers["ratelimit-reset"]) <= WINDOW_MS / 1000
        assert ("retry-after" in answer.headers) == (answer.status_code == 429)
    assert answers[-1].json()["error"]["code"] == "rate_limit_exceeded"
    async with gateway.client(client_id="weak", scope="other") as client:
        assert (await client.get(ABSENT)).headers["ratelimit-remaining"] == "2"
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as stranger:
        assert "ratelimit-limit" not in (await stranger.get(ABSENT)).headers


async def test_a_client_past_its_limit_is_refused_before_its_body_is_read(start_gateway: StartGateway):
    gateway = await start_gateway(API_V1_RATE_LIMIT_MAX="1")
    async with gateway.client(client_id="pushing") as client:
        await client.get(ABSENT)
        answer = await client.post("/api/v1/jobs", files={"model": ("m.onnx", bytes(4 << 20))})
    assert (answer.status_code, answer.headers["connection"]) == (429, "close")


async def test_a_new_window_begins_with_the_first_request_after_the_last(shared_bus: Bus):
    clock = Clock()
    limits = RateLimits(shared_bus, limit=10, window_ms=1000, clock=clock)
    assert await taken(limits, 15) == 10
    assert await limits.take("c") == Standing(accepted=False, limit=10, remaining=0, reset_s=1)
    clock.now += 0.999
    assert await taken(limits, 1) == 0
    clock.now += 0.001
    assert await taken(limits, 15) == 10


async def test_what_one_gateway_has_not_spent_is_all_that_another_may_miss(shared_bus: Bus):
    one, other = (RateLimits(shared_bus, limit=64, window_ms=WINDOW_MS) for _ in range(2))
    assert await taken(one, 1, "split") == 1
    assert await taken(other, 100, "split") == 62
    assert await taken(one, 100, "split") == 1


@pytest.mark.asyncio(loop_scope="function")
async def test_without_the_bus_a_gateway_accepts_its_share_and_rejoins_later(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rate_limit, "APART_S", 0.0)
    monkeypatch.setattr(rate_limit, "LEASE_TIMEOUT_S", 0.1)
    async with await Bus.connect(NatsSettings(nats_url=nats_server.url), name="test") as bus:
        limits = RateLimits(bus, limit=8, window_ms=WINDOW_MS)
        assert await taken(limits, 2) == 2
        await nats_server.kill()
        assert await taken(limits, 10) == 8 // rate_limit.SHARES_WHEN_APART
        await nats_server.start()

        async def accepted() -> bool:
            return (await limits.take("c")).accepted

        await eventually(accepted)
        assert await taken(limits, 10) >= 5
