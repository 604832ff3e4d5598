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

from converter.common.bus import Bus
from converter.common.topology import EVENTS, HEALTH, bucket_key, stage_durable
from converter.common.workers import alive
from converter.contracts.job import STAGES, Stage, Timestamp, timestamp
from converter.gateway.http.answers import json_answer
from converter.gateway.openapi.documentation import Answer, Operation

log = structlog.get_logger()

REFRESH_S = 30.0
RECHECK_S = 5.0
"""How soon to look again while something is wrong."""
CHECK_TIMEOUT_S = 4.0
VITAL = "nats"

Check = Callable[[], Awaitable[object]]
"""Asks one dependency; raises when it does not answer."""

Status = Literal["healthy", "degraded", "unhealthy"]


class DependencyHealth(Struct, frozen=True, kw_only=True):
    """How one dependency answered."""

    status: Literal["up", "down"]
    latency_ms: float
    error: str | None


class StageHealth(Struct, frozen=True, kw_only=True):
    """Who works on a stage, how many jobs wait for it, and how many a worker has; all unknown without the bus."""

    workers: int | None = None
    queue_depth: int | None = None
    in_progress: int | None = None


class HealthReport(Struct, frozen=True, kw_only=True):
    """`unhealthy`: the event bus is away or takes no writes; `degraded`: another dependency, or a stage's workers."""

    status: Status
    checked_at: Timestamp
    dependencies: dict[str, DependencyHealth]
    stages: dict[Stage, StageHealth]


class Health:
    """Keeps the last report fresh for as long as `keep_fresh` runs.

    Args:
        checks: by the dependency's name; the one named `VITAL` decides whether anything works.
        stages: tells of every stage.
        refresh_s: how old a report may become.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        stages: Callable[[], Awaitable[dict[Stage, StageHealth]]],
        *,
        refresh_s: float = REFRESH_S,
    ) -> None:
        self._checks, self._stages, self._refresh_s = checks, stages, refresh_s
        self.report = HealthReport(status="unhealthy", checked_at=timestamp(), dependencies={}, stages={})

    async def refresh(self) -> None:
        """Ask every dependency, at once and each no longer than `CHECK_TIMEOUT_S`."""
        stages = dict.fromkeys(STAGES, StageHealth())

        async def look_at_stages() -> None:
            stages.update(await self._stages())

        *found, _ = await asyncio.gather(*map(_asked, self._checks.values()), _asked(look_at_stages))
        dependencies = dict(zip(self._checks, found, strict=True))
        report = HealthReport(
            status=_overall(dependencies, stages), checked_at=timestamp(), dependencies=dependencies, stages=stages
        )
        if report.status != self.report.status:
            errors = {name: answer.error for name, answer in dependencies.items() if answer.error}
            idle = [stage for stage, found in stages.items() if not found.workers]
            log.info(
                "health.changed", before=self.report.status, after=report.status, errors=errors, without_worker=idle
            )
        self.report = report

    async def keep_fresh(self) -> None:
        """Refresh for ever."""
        while True:
            await asyncio.sleep(self._refresh_s if self.report.status == "healthy" else min(RECHECK_S, self._refresh_s))
            await self.refresh()


async def take_write(bus: Bus) -> None:
    """Have the event bus store something small: a server whose disk has failed still answers pings.

    Raises:
        EventBusUnavailable: it does not answer, or the bucket is not provisioned.
        BusRefused: it takes no writes.
    """
    await bus.store(bucket_key(HEALTH, "api-gateway"), b"")


async def stages_at_work(bus: Bus) -> dict[Stage, StageHealth]:
    """Each stage's live workers, and its queue as the durable consumer tells it.

    Raises:
        EventBusUnavailable: it does not answer.
        BusRefused: a stage's consumer is not provisioned.
    """
    workers = [worker.service for worker in await alive(bus)]
    queues = {stage: await bus.api(f"CONSUMER.INFO.{EVENTS}.{stage_durable(stage)}") for stage in STAGES}
    return {
        stage: StageHealth(
            workers=workers.count(stage_durable(stage)),
            queue_depth=queue["num_pending"],
            in_progress=queue["num_ack_pending"],
        )
        for stage, queue in queues.items()
    }


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


def _overall(dependencies: Mapping[str, DependencyHealth], stages: Mapping[Stage, StageHealth]) -> Status:
    if dependencies[VITAL].status == "down":
        return "unhealthy"
    reachable = all(answer.status == "up" for answer in dependencies.values())
    return "healthy" if reachable and all(stage.workers for stage in stages.values()) else "degraded"


class Liveness(Struct, frozen=True):
    """That the process answers."""

    status: Literal["alive"] = "alive"


class Readiness(Struct, frozen=True):
    """Whether requests should be sent here."""

    status: Literal["ready", "not_ready"]


_HEALTH = Operation(
    answers={
        200: Answer("`healthy` or `degraded`.", HealthReport),
        503: Answer("`unhealthy`: the event bus is away or takes no writes.", HealthReport),
    },
    tag="service",
)
_LIVE = Operation(answers={200: Answer("It does.", Liveness)}, tag="service")
_READY = Operation(answers={200: Answer("Yes.", Readiness), 503: Answer("No.", Readiness)}, tag="service")


@get("/health", opt={"requires": None, "operation": _HEALTH}, media_type=MediaType.JSON)
async def get_health(health: Health) -> Response[bytes]:
    """How the dependencies answered last, and who works on each stage."""
    report = health.report
    return json_answer(report, status_code=503 if report.status == "unhealthy" else 200)


@get("/health/live", opt={"requires": None, "operation": _LIVE}, media_type=MediaType.JSON)
async def get_liveness() -> Response[bytes]:
    """Whether the process answers at all."""
    return json_answer(Liveness())


@get("/health/ready", opt={"requires": None, "operation": _READY}, media_type=MediaType.JSON)
async def get_readiness(health: Health) -> Response[bytes]:
    """Whether requests should be sent here."""
    ready = health.report.status != "unhealthy"
    return json_answer(Readiness("ready" if ready else "not_ready"), status_code=200 if ready else 503)
