"""Whether the gateway can do its work. Dependencies are asked in the background, so a probe never waits for one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import structlog
from litestar import Response, get
from litestar.enums import MediaType
from msgspec import Struct

from converter.contracts.job import Timestamp, timestamp
from converter.gateway.answers import json_answer

log = structlog.get_logger()

REFRESH_S = 30.0
CHECK_TIMEOUT_S = 10.0
VITAL = "nats"

Check = Callable[[], Awaitable[object]]
"""Asks one dependency; raises when it does not answer."""


class DependencyHealth(Struct, frozen=True, kw_only=True):
    """How one dependency answered."""

    status: Literal["up", "down"]
    latency_ms: float
    error: str | None


class HealthReport(Struct, frozen=True, kw_only=True):
    """`degraded` while something other than the event bus is away; `unhealthy` without the bus."""

    status: Literal["healthy", "degraded", "unhealthy"]
    checked_at: Timestamp
    dependencies: dict[str, DependencyHealth]


class Health:
    """Keeps the last report fresh for as long as `keep_fresh` runs.

    Args:
        checks: by the dependency's name; the one named `VITAL` decides whether anything works.
    """

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self.report = HealthReport(status="unhealthy", checked_at=timestamp(), dependencies={})

    async def refresh(self) -> None:
        """Ask every dependency, at once."""
        found = await asyncio.gather(*(_asked(check) for check in self._checks.values()))
        dependencies = dict(zip(self._checks, found, strict=True))
        report = HealthReport(status=_overall(dependencies), checked_at=timestamp(), dependencies=dependencies)
        if report.status != self.report.status:
            errors = {name: answer.error for name, answer in dependencies.items() if answer.error}
            log.info("health.changed", before=self.report.status, after=report.status, errors=errors)
        self.report = report

    async def keep_fresh(self) -> None:
        """Refresh for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_S)


async def _asked(check: Check) -> DependencyHealth:
    began = time.perf_counter()
    error = None
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await check()
    except TimeoutError:
        error = f"no answer within {CHECK_TIMEOUT_S:g} s"
    except Exception as fault:  # noqa: BLE001 - whatever a dependency does, the report says it
        error = str(fault) or type(fault).__name__
    latency_ms = round((time.perf_counter() - began) * 1000, 1)
    return DependencyHealth(status="down" if error else "up", latency_ms=latency_ms, error=error)


def _overall(dependencies: Mapping[str, DependencyHealth]) -> Literal["healthy", "degraded", "unhealthy"]:
    if dependencies[VITAL].status == "down":
        return "unhealthy"
    return "healthy" if all(answer.status == "up" for answer in dependencies.values()) else "degraded"


@get("/health", opt={"requires": None}, media_type=MediaType.JSON)
async def get_health(health: Health) -> Response[bytes]:
    """How the dependencies answered last."""
    report = health.report
    return json_answer(report, status_code=503 if report.status == "unhealthy" else 200)


@get("/health/live", opt={"requires": None}, media_type=MediaType.JSON)
async def get_liveness() -> Response[bytes]:
    """Whether the process answers at all."""
    return json_answer({"status": "alive"})


@get("/health/ready", opt={"requires": None}, media_type=MediaType.JSON)
async def get_readiness(health: Health) -> Response[bytes]:
    """Whether requests should be sent here."""
    ready = health.report.status != "unhealthy"
    return json_answer({"status": "ready" if ready else "not_ready"}, status_code=200 if ready else 503)
