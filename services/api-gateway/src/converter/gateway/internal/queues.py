"""How the queues stand: what waits, what is being done, by whom, and for how long the oldest has been there."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Literal

from litestar import Response, get
from litestar.enums import MediaType
from msgspec import Struct

from converter.common.bus import Bus
from converter.common.topology import EVENTS, PROMOTER, stage_durable
from converter.common.workers import alive
from converter.contracts.job import STAGES, Timestamp, timestamp
from converter.contracts.live import WorkerStatus
from converter.gateway.gateway import Gateway
from converter.gateway.http.answers import json_answer
from converter.gateway.openapi.documentation import Answer, Operation

QUEUES = {**{str(stage): stage_durable(stage) for stage in STAGES}, PROMOTER: PROMOTER}
"""The durable consumer behind each queue."""


class WorkerStanding(Struct, frozen=True, kw_only=True):
    """A worker that is alive; `since` is when it started, `job_id` the first of its `jobs`."""

    id: str
    state: Literal["busy", "idle"]
    job_id: str | None
    jobs: tuple[str, ...]
    concurrency: int
    since: Timestamp


class QueueStanding(Struct, frozen=True, kw_only=True):
    """One queue, in messages: for each job one in a stage's, for each promotion one in the promoter's.

    `pending` wait for a worker, `in_progress` were handed to one (or wait for their next try), `redelivered` of these
    more than once. `oldest_age_s` is of the oldest of both. A cancelled job counts until a worker has passed over it.
    """

    pending: int
    in_progress: int
    redelivered: int
    oldest_age_s: float | None
    workers: tuple[WorkerStanding, ...]


class QueueStats(Struct, frozen=True, kw_only=True):
    """Every queue, by the stage's name, and `promoter`."""

    checked_at: Timestamp
    stages: dict[str, QueueStanding]


_STATS = Operation(
    answers={200: Answer("As the event bus tells it now.", QueueStats)},
    refusals=("event_bus_unavailable",),
    tag="service",
)


@get("/queues/stats", opt={"requires": None, "operation": _STATS}, media_type=MediaType.JSON)
async def get_queue_stats(gateway: Gateway) -> Response[bytes]:
    """How each stage's queue stands, and the promoter's."""
    return json_answer(await queue_stats(gateway.bus))


async def queue_stats(bus: Bus) -> QueueStats:
    """Every queue, as the event bus tells it now.

    Raises:
        EventBusUnavailable: it does not answer.
        BusRefused: a consumer is not provisioned.
    """
    workers = await alive(bus)
    standings = await asyncio.gather(*(_standing(bus, durable, workers) for durable in QUEUES.values()))
    return QueueStats(checked_at=timestamp(), stages=dict(zip(QUEUES, standings, strict=True)))


async def _standing(bus: Bus, durable: str, workers: list[WorkerStatus]) -> QueueStanding:
    consumer = await bus.api(f"CONSUMER.INFO.{EVENTS}.{durable}")
    pending, in_progress = consumer["num_pending"], consumer["num_ack_pending"]
    return QueueStanding(
        pending=pending,
        in_progress=in_progress,
        redelivered=consumer["num_redelivered"],
        oldest_age_s=await _oldest_age_s(bus, consumer) if pending or in_progress else None,
        workers=tuple(_worker(worker) for worker in workers if worker.service == durable),
    )


async def _oldest_age_s(bus: Bus, consumer: dict[str, Any]) -> float | None:
    """The age of the first message that is not acknowledged."""
    oldest = await bus.next_after(EVENTS, consumer["config"]["filter_subject"], consumer["ack_floor"]["stream_seq"])
    return round(max((datetime.now(UTC) - oldest.stored_at).total_seconds(), 0.0), 3) if oldest else None


def _worker(worker: WorkerStatus) -> WorkerStanding:
    return WorkerStanding(
        id=worker.worker,
        state="busy" if worker.jobs else "idle",
        job_id=worker.jobs[0] if worker.jobs else None,
        jobs=worker.jobs,
        concurrency=worker.concurrency,
        since=worker.since,
    )
