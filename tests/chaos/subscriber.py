"""Somebody outside who follows the events, with nothing but a subscriber's own key."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import nats
import nats.errors

from converter.common.background import background
from converter.common.topology import EVENTS, SUBSCRIBER

AT_ONCE = 50


class Subscriber:
    """Reads its durable consumer while `following` is open, through whatever happens to the servers."""

    def __init__(self) -> None:
        self.got: list[str] = []
        """The ids of the events, as they came; one whose acknowledgement was lost comes again."""

    @contextlib.asynccontextmanager
    async def following(self, url: str, seed: str) -> AsyncIterator[None]:
        """Connect to `url` with the key `seed`."""

        async def swallow(_error: Exception) -> None:
            """Servers are away at times; that is what is tested."""

        connection = await nats.connect(
            url.split(","), nkeys_seed_str=seed, max_reconnect_attempts=-1, error_cb=swallow, ping_interval=3
        )
        consumer = await connection.jetstream(domain="converter").pull_subscribe_bind(SUBSCRIBER, stream=EVENTS)

        async def follow() -> None:
            while True:
                with contextlib.suppress(nats.errors.Error, TimeoutError):
                    for message in await consumer.fetch(AT_ONCE, timeout=1):
                        self.got.append((message.headers or {})["ce-id"])
                        await message.ack()

        async with background(follow):
            yield
        await connection.close()
