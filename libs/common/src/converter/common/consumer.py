"""Takes messages from a durable consumer and settles them. Nothing else acks, naks or terminates.

A handler returns, and the message is acknowledged; or it raises:

    Transient   try again later: put back with a delay that grows with its deliveries
    Released    the worker is draining: put back at once, for another worker
    Rejected    it can never be handled: set aside
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import structlog

from converter.common.background import background
from converter.common.bus import Bus, BusRefused, Delivery, EventBusUnavailable
from converter.common.failpoint import failpoint
from converter.common.service import Unreachable
from converter.common.topology import SECOND

log = structlog.get_logger()

PULL_WAIT_S = 2.0
PULL_PAUSE_S = 1.0
LONGEST_DELAY_S = 30.0

T = TypeVar("T")
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

    async def slot() -> None:
        while not stop.is_set():
            try:
                delivery = await _unless(stop, bus.next_delivery(stream, durable, wait_s=PULL_WAIT_S))
            except (EventBusUnavailable, BusRefused) as error:
                log.warning("consumer.pull_failed", durable=durable, error=str(error))
                await _unless(stop, asyncio.sleep(PULL_PAUSE_S))
                continue
            if delivery is not None:
                failpoint("after", "pull")
                await _settle(delivery, handle, every_s, draining=stop.is_set())

    async with asyncio.TaskGroup() as slots:
        for _ in range(concurrency):
            slots.create_task(slot())


async def _settle(delivery: Delivery, handle: Handler, every_s: float, *, draining: bool) -> None:
    facts = {"subject": delivery.subject, "deliveries": delivery.deliveries}
    try:
        try:
            if draining:
                raise Released
            async with _kept(delivery, every_s):
                await handle(delivery)
        except Released:
            await delivery.nak()
        except Rejected as why:
            log.error("message.rejected", **facts, error=str(why))
            await delivery.term()
        except Transient as why:
            delay_s = _delay_s(delivery) if why.delay_s is None else why.delay_s
            log.warning("message.put_back", **facts, delay_s=delay_s, error=str(why))
            await delivery.nak(delay_s)
        except Exception:
            log.exception("message.failed", **facts)
            await delivery.nak(_delay_s(delivery))
        else:
            failpoint("before", "ack")
            await delivery.ack()
            failpoint("after", "ack")
    except EventBusUnavailable as error:
        # It will be delivered again; handling it twice changes nothing.
        log.warning("message.not_settled", **facts, error=str(error))


def _delay_s(delivery: Delivery) -> float:
    return float(min(LONGEST_DELAY_S, 2 ** min(delivery.deliveries - 1, 5)))


@contextlib.asynccontextmanager
async def _kept(delivery: Delivery, every_s: float) -> AsyncIterator[None]:
    """Keep telling the server that the message is being worked on."""

    async def tell() -> None:
        while True:
            await asyncio.sleep(every_s)
            with contextlib.suppress(EventBusUnavailable):
                await delivery.in_progress()

    async with background(tell):
        yield


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` gives, or nothing once `stop` is set; what had arrived by then is not lost."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        working.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
    return None if working.cancelled() else working.result()
