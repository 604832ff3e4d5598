"""What a durable pull consumer hands out, one message for each time that somebody asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from converter.common.bus.errors import FAULTS, BusRefused, EventBusUnavailable, unavailable
from converter.common.bus.messages import Delivery


class Feed:
    """A durable consumer's messages, one for each time that somebody asks.

    Whoever has waited longest gets what comes, as one request is as good as another. So there are never more messages
    here than somebody asked for, and a worker that is busy keeps none from the others.
    """

    def __init__(self, client: Client, subject: str) -> None:
        self.subject, self.inbox = subject, client.new_inbox()
        self._client = client
        self._asked: deque[asyncio.Future[Msg | None]] = deque()
        self._ended = False

    async def next(self, *, wait_s: float) -> Delivery | None:
        """One message; `None` when there is none within `wait_s`, or the feed has ended.

        Keep `wait_s` short: a request that is under way while the server restarts is lost.

        Raises:
            BusRefused: there is no such consumer.
            EventBusUnavailable: no answer.
        """
        if self._ended:
            return None
        if not self._client.is_connected:  # the library would ask later, for somebody who waits no more
            raise EventBusUnavailable(f"{self.subject}: not connected")
        asked = asyncio.get_running_loop().create_future()
        self._asked.append(asked)
        query = msgspec.json.encode({"batch": 1, "expires": int(wait_s * 1e9)})
        try:
            with unavailable(self.subject):
                async with asyncio.timeout(wait_s + 1.0):
                    await self._client.publish(self.subject, query, reply=self.inbox)
                    message = await asked
        except BaseException:
            late = asked.result() if asked.done() and not asked.cancelled() else None
            with contextlib.suppress(ValueError):  # it had its answer
                self._asked.remove(asked)
            if late:
                await self.on_message(late)
            raise
        if message is None:
            return None
        status = (message.headers or {}).get("Status")
        if status is None:
            return Delivery(message)
        if status in {"404", "408"}:
            return None
        if status == "503":
            raise EventBusUnavailable(f"{self.subject}: nobody answers")
        raise BusRefused(self.subject, int(status), (message.headers or {}).get("Description", ""))

    def end(self) -> None:
        """Nobody waits any more, nor will."""
        self._ended = True
        while self._asked:
            if not (asked := self._asked.popleft()).done():
                asked.set_result(None)

    async def on_message(self, message: Msg) -> None:
        """Hand it to whoever has waited longest; put back what comes for somebody who has gone."""
        while self._asked:
            if not (asked := self._asked.popleft()).done():
                asked.set_result(message)
                return
        if message.reply:
            with contextlib.suppress(*FAULTS):
                await message.nak()
