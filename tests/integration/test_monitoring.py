"""What a worker tells its monitoring system."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from structlog.testing import capture_logs
from waiting import eventually

from converter.common import monitoring
from converter.common.bus import Bus
from converter.common.metrics import LOOP_LAG_SECONDS, watch_loop
from converter.common.monitoring import monitored
from converter.common.service import Unreachable
from converter.common.settings import MonitoringSettings
from converter.devstack.nats_server import NatsServer


@pytest.fixture
async def client(bus: Bus) -> AsyncIterator[httpx.AsyncClient]:
    """Of a worker's monitoring address."""
    with capture_logs() as logs:
        async with monitored(MonitoringSettings(), bus):
            [port] = [entry["port"] for entry in logs if entry["event"] == "http.listening"]
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as opened:
                yield opened


async def test_metrics_are_served_in_prometheus_words(client: httpx.AsyncClient):
    answer = await client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "# TYPE converter_stage_attempt_seconds histogram" in answer.text
    assert "# TYPE converter_messages_total counter" in answer.text
    assert "process_resident_memory_bytes" in answer.text


async def test_a_worker_that_is_well_says_so(client: httpx.AsyncClient):
    assert [(await client.get(f"/health/{kind}")).status_code for kind in ("live", "ready")] == [200, 200]
    assert (await client.get("/elsewhere")).status_code == 404


async def test_without_its_event_bus_a_worker_lives_but_is_not_ready(
    monkeypatch: pytest.MonkeyPatch, nats_server: NatsServer, client: httpx.AsyncClient
):
    monkeypatch.setattr(monitoring, "STALE_S", 8.0)  # more than a look and a silent request take
    await nats_server.kill()

    async def is_not_ready() -> bool:
        return (await client.get("/health/ready")).status_code == 503

    await eventually(is_not_ready, within_s=30)
    assert (await client.get("/health/live")).status_code == 200


async def test_a_worker_whose_loop_is_stuck_is_seen_to_be(monkeypatch: pytest.MonkeyPatch, client: httpx.AsyncClient):
    monkeypatch.setattr(monitoring, "STALE_S", 0.3)
    asked: asyncio.Task[int] = asyncio.create_task(asyncio.to_thread(_status_after, client, 0.6))
    await asyncio.sleep(0)
    time.sleep(1.2)  # noqa: ASYNC251 - this is the fault
    assert await asked == 503


def _status_after(client: httpx.AsyncClient, delay_s: float) -> int:
    time.sleep(delay_s)
    return httpx.get(f"{client.base_url}/health/live", trust_env=False).status_code


async def test_no_name_server_is_asked_who_this_host_is(monkeypatch: pytest.MonkeyPatch, bus: Bus):
    asked: list[object] = []
    monkeypatch.setattr(socket, "gethostbyaddr", asked.append)  # what getfqdn waits for
    async with monitored(MonitoringSettings(metrics_host="127.0.0.1"), bus):
        pass
    assert asked == []


async def test_an_address_that_is_taken_is_named(bus: Bus):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unreachable, match=f"127.0.0.1:{port}"):
            async with monitored(MonitoringSettings(metrics_port=port), bus):
                pass


async def test_the_lag_of_the_event_loop_is_measured():
    def slow_samples() -> float:
        [family] = LOOP_LAG_SECONDS.collect()
        samples = {sample.labels.get("le"): sample.value for sample in family.samples if sample.name.endswith("bucket")}
        return samples["+Inf"] - samples["0.3"]

    before = slow_samples()
    watching = asyncio.create_task(watch_loop())
    await asyncio.sleep(0)
    time.sleep(1.0)  # noqa: ASYNC251 - this is the lag

    async def is_seen() -> bool:
        return slow_samples() == before + 1

    await eventually(is_seen)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
