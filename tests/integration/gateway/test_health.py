"""What /health says, and that it says so at once whatever the dependencies do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from deliveries import next_delivery
from jobs import created
from waiting import eventually

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.topology import HEALTH, bucket_stream, stage_durable
from converter.common.workers import Presence
from converter.contracts.job import STAGES, Stage
from converter.devstack.nats_server import NatsServer
from converter.gateway import health
from converter.gateway.health import Health, StageHealth, take_write

from .conftest import GatewayProcess, Issuer, running

LookAtStages = Callable[[], Awaitable[dict[Stage, StageHealth]]]
QUICK = {"HEALTH_REFRESH_MS": "200"}


@pytest.fixture
def of_stages() -> LookAtStages:
    async def all_at_work() -> dict[Stage, StageHealth]:
        return {stage: StageHealth(workers=1, queue_depth=0, in_progress=0) for stage in STAGES}

    return all_at_work


async def report(gateway: GatewayProcess, path: str = "/health", *, internal: bool = False) -> httpx.Response:
    base = gateway.internal_url if internal else gateway.url
    async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
        return await client.get(path)


async def becomes(gateway: GatewayProcess, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        found: dict[str, Any] = (await report(gateway)).json()
        return found if condition(found) else None

    return await eventually(look)


async def test_it_tells_of_every_dependency_and_of_each_stage_s_workers_and_queue(
    nats_server: NatsServer, bus: Bus, job_log: JobLog, tmp_path: Path
):
    issuer = Issuer()
    async with issuer.serving(), AsyncExitStack() as workers:
        await job_log.append("j", lambda _: created("j"))
        async with running(nats_server, issuer, tmp_path / "objects", tmp_path, **QUICK) as gateway:
            first = (await report(gateway)).json()
            assert first["status"] == "degraded"
            assert {name: found["status"] for name, found in first["dependencies"].items()} == dict.fromkeys(
                ("nats", "object_storage", "member_center", "file_access_agent"), "up"
            )
            assert first["stages"]["onnx"] == {"workers": 0, "queue_depth": 1, "in_progress": 0}
            await next_delivery(bus, "EVENTS", stage_durable(Stage.ONNX), wait_s=1)
            for stage in STAGES:
                presence = Presence(bus, stage_durable(stage), concurrency=1)
                await workers.enter_async_context(presence.shown(0.3))
            found = await becomes(gateway, lambda found: found["status"] == "healthy")
            assert found["stages"]["onnx"]["workers"] == 1
            assert sum(found["stages"]["onnx"][key] for key in ("queue_depth", "in_progress")) == 1
            assert (await report(gateway, internal=True)).json()["status"] == "healthy"
            await workers.aclose()
            await becomes(gateway, lambda found: found["status"] == "degraded")


async def test_without_the_event_bus_it_is_unhealthy_at_once_and_not_ready_but_alive(
    nats_server: NatsServer, tmp_path: Path
):
    issuer = Issuer()
    async with issuer.serving(), running(nats_server, issuer, tmp_path / "objects", tmp_path, **QUICK) as gateway:
        assert (await report(gateway, "/health/ready")).status_code == 200
        await nats_server.kill()
        found = await becomes(gateway, lambda found: found["status"] == "unhealthy")
        assert found["stages"]["bie"] == {"workers": None, "queue_depth": None, "in_progress": None}
        began = time.monotonic()
        statuses = [(await report(gateway, path)).status_code for path in ("/health", "/health/ready", "/health/live")]
        assert statuses == [503, 503, 200]
        assert time.monotonic() - began < 1
        await nats_server.start()
        await becomes(gateway, lambda found: found["status"] != "unhealthy")


async def test_a_bus_that_answers_but_takes_no_writes_is_unhealthy(bus: Bus, of_stages: LookAtStages):
    checked = Health({"nats": lambda: take_write(bus)}, of_stages)
    await checked.refresh()
    assert checked.report.status == "healthy"
    config = (await bus.api(f"STREAM.INFO.{bucket_stream(HEALTH)}"))["config"]
    await bus.api(f"STREAM.UPDATE.{bucket_stream(HEALTH)}", config | {"sealed": True})
    assert await bus.round_trip() < 2
    await checked.refresh()
    assert checked.report.status == "unhealthy"
    assert "seal" in str(checked.report.dependencies["nats"].error)


async def test_one_that_hangs_holds_up_no_other_check_and_no_probe(
    of_stages: LookAtStages, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(health, "CHECK_TIMEOUT_S", 0.2)

    async def well() -> None:
        return

    checked = Health({"nats": well, "file_access_agent": asyncio.Event().wait}, of_stages)
    began = time.monotonic()
    await checked.refresh()
    assert time.monotonic() - began < 1
    assert checked.report.status == "degraded"
    assert checked.report.dependencies["file_access_agent"].error == "no answer within 0.2 s"
    assert checked.report.dependencies["nats"].status == "up"
