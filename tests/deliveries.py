"""One message of a durable consumer, for tests that are its worker."""

from __future__ import annotations

from converter.common.bus import Bus, Delivery


async def next_delivery(bus: Bus, stream: str, durable: str, *, wait_s: float) -> Delivery | None:
    """What `bus` is given within `wait_s`."""
    async with bus.feed(stream, durable) as feed:
        return await feed.next(wait_s=wait_s)
