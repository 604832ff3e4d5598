"""The page from which Prometheus takes the figures of this gateway and of the queues.

Queues are looked up when the page is asked for, so that their figures are those of that moment.
"""

from __future__ import annotations

import asyncio

import structlog
from litestar import Response, get
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest

from converter.common.bus import BusRefused, EventBusUnavailable
from converter.gateway.gateway import Gateway
from converter.gateway.internal.queues import QueueStanding, queue_stats
from converter.gateway.openapi.documentation import Answer, Operation

log = structlog.get_logger()

LOOK_TIMEOUT_S = 3.0
"""Less than a scrape may take, so that the other figures arrive when the event bus is silent."""
_QUEUE = {
    "pending": Gauge("converter_queue_pending", "Messages that wait for a worker.", ["queue"]),
    "in_progress": Gauge(
        "converter_queue_in_progress", "Messages that a worker has or that wait for a try.", ["queue"]
    ),
    "redelivered": Gauge("converter_queue_redelivered", "Of those in progress, handed out more than once.", ["queue"]),
    "oldest_age_s": Gauge("converter_queue_oldest_age_seconds", "Age of the oldest that is not done.", ["queue"]),
}
_WORKERS = Gauge("converter_workers", "Workers that are alive.", ["queue"])

_METRICS = Operation(answers={200: Answer("In Prometheus's text format.")}, tag="service")


@get("/metrics", opt={"requires": None, "operation": _METRICS}, media_type="text/plain")
async def get_metrics(gateway: Gateway) -> Response[bytes]:
    """The figures of this gateway and of the queues."""
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            stats = await queue_stats(gateway.bus)
    except (EventBusUnavailable, BusRefused, TimeoutError) as error:
        log.warning("metrics.queues_unknown", error=str(error))
        _forget_queues()
    else:
        for queue, standing in stats.stages.items():
            _set(queue, standing)
    # As a header, since the framework adds the character set to a media type of text.
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _set(queue: str, standing: QueueStanding) -> None:
    for figure, gauge in _QUEUE.items():
        gauge.labels(queue).set(getattr(standing, figure) or 0)
    _WORKERS.labels(queue).set(len(standing.workers))


def _forget_queues() -> None:
    """Show none rather than old figures: an alert on an absent one tells that nobody knows."""
    for gauge in (*_QUEUE.values(), _WORKERS):
        gauge.clear()
