"""Takes messages from a durable consumer and settles them. Nothing else acks, naks or terminates.

A handler returns, and the message is acknowledged; or it raises:

    Transient   try again later: put back with a delay that grows with its deliveries
    Released    the worker is draining: put back at once, for another worker
    Rejected    it can never be handled: set aside

A message whose handler finds the event bus full, or away, is put back, too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from opentelemetry.trace import SpanKind

from converter.common import tracing
from converter.common.background import Repeated
from converter.common.bus import Bus, BusFull, BusRefused, Delivery, EventBusUnavailable, Feed
from converter.common.failpoint import failpoint
from converter.common.metrics import MESSAGES, REDELIVERIES
from converter.common.service import Unreachable
from converter.common.topology import SECOND

log = structlog.get_logger()

PULL_WAIT_S = 2.0
PULL_PAUSE_S = 1.0
LONGEST_DELAY_S = 30.0

Handler = Callable[[Delivery], Awaitable[None]]


class Transient(Exception):
    """Not now. `delay_s` is how long to wait (default: longer at each delivery, up to 30 s)."""

    def __init__(self, why: str, *, delay_s: float | None = None) -> None:
        super().__init__(why)
        self.delay_s = delay_s


class Released(Exception):
    """Given back untouched."""


class Rejected(Exception):
    """Never."""


async def heartbeat_s(bus: Bus, stream: str, durable: str) -> float:
    """How often a worker must tell that it is alive: a fifth of the consumer's `ack_wait`.

    Raises:
        Unreachable: there is no such consumer.
    """
    try:
        config = (await bus.api(f"CONSUMER.INFO.{stream}.{durable}"))["config"]
    except BusRefused as refused:
        why = f"{refused.description}; run python -m converter.common.provision"
        raise Unreachable(f"the consumer {durable} of {stream}", bus.address, why) from refused
    return float(config["ack_wait"]) / SECOND / 5


async def consume(
    bus: Bus, stream: str, durable: str, handle: Handler, *, concurrency: int, stop: asyncio.Event
) -> None:
    """Handle messages, `concurrency` at once, until `stop` is set and those under way are settled.

    Raises:
        Unreachable: there is no such consumer.
    """
    every_s = await heartbeat_s(bus, stream, durable)

    async def slot(feed: Feed) -> None:
        while not stop.is_set():
            try:
                delivery = await feed.next(wait_s=PULL_WAIT_S)
            except (EventBusUnavailable, BusRefused) as error:
                log.warning("consumer.pull_failed", durable=durable, error=str(error))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PULL_PAUSE_S):
                        await stop.wait()
                continue
            if delivery is not None:
                failpoint("after", "pull")
                if delivery.deliveries > 1:
                    REDELIVERIES.labels(durable).inc()
                with tracing.received(delivery.headers, f"{durable} process", SpanKind.CONSUMER) as span:
                    outcome = await _settle(delivery, handle, every_s, draining=stop.is_set())
                    span.set_attribute("outcome", outcome)
                MESSAGES.labels(durable, outcome).inc()

    async with bus.feed(stream, durable) as feed, asyncio.TaskGroup() as slots:
        for _ in range(concurrency):
            slots.create_task(slot(feed))
        await stop.wait()
        feed.end()


async def _settle(delivery: Delivery, handle: Handler, every_s: float, *, draining: bool) -> str:
    """Handle the message and settle it; how."""
    facts = {"subject": delivery.subject, "deliveries": delivery.deliveries}
    try:
        try:
            if draining:
                raise Released
            async with Repeated(partial(_keep, delivery), every_s):
                await handle(delivery)
        except Released:
            await delivery.nak()
            return "released"
        except Rejected as why:
            log.error("message.rejected", **facts, error=str(why))
            await delivery.term()
            return "rejected"
        except (Transient, BusFull, EventBusUnavailable) as why:
            delay_s = why.delay_s if isinstance(why, Transient) and why.delay_s is not None else _delay_s(delivery)
            log.warning("message.put_back", **facts, delay_s=delay_s, error=str(why))
            await delivery.nak(delay_s)
            return "put_back"
        except Exception:
            log.exception("message.failed", **facts)
            await delivery.nak(_delay_s(delivery))
            return "failed"
        failpoint("before", "ack")
        await delivery.ack()
        failpoint("after", "ack")
    except EventBusUnavailable as error:
        # It will be delivered again; handling it twice changes nothing.
        log.warning("message.not_settled", **facts, error=str(error))
        return "not_settled"
    return "acknowledged"


def _delay_s(delivery: Delivery) -> float:
    return float(min(LONGEST_DELAY_S, 2 ** min(delivery.deliveries - 1, 5)))


async def _keep(delivery: Delivery) -> None:
    """Tell the server that the message is being worked on."""
    with contextlib.suppress(EventBusUnavailable):
        await delivery.in_progress()
