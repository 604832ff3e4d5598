"""Sends messages in the services' names: what was sent before once more, and what nobody should have sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

from deliveries import next_delivery

from converter.common.bus import Bus, StoredMessage, WrongSequence
from converter.common.identifiers import uuid7
from converter.common.settings import NatsSettings
from converter.devstack.stack import Stack

from .observer import FORGED

EVENTS = "EVENTS"
FEEDS = {
    "stage-onnx": "job.created",
    "stage-bie": "stage.completed.onnx",
    "stage-nef": "stage.completed.bie",
    "promoter": "promotion.requested",
}
"""By service, the kind of event that brings it work."""
AT_ONCE = 50
LATEST_S = 1.5


class Senders:
    """A connection for each service, made with that one's own key; `seed` decides what is sent when."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self._stack, self._chance = stack, random.Random(seed)  # noqa: S311 - wants a seed
        self._buses: dict[str, Bus] = {}
        self.sent_again = 0
        self.malformed: Counter[str] = Counter()
        """By the service that they are brought to, how many messages that are no event were sent."""
        self.handed_back = 0

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Have the connections."""
        async with AsyncExitStack() as closing:
            for user in (*FEEDS, "api-gateway"):
                seed_file = self._stack.directory / "nats-users" / f"{user}.seed"
                settings = NatsSettings(nats_url=self._stack.env["NATS_URL"], nats_nkey_seed_file=seed_file)
                self._buses[user] = await closing.enter_async_context(await Bus.connect(settings, name=user))
            yield

    async def again(self, count: int) -> None:
        """Send `count` of the events that are stored by then once more, in any order; none may be stored again."""
        stored: list[StoredMessage] = []
        while self.sent_again < count:
            last = stored[-1].sequence if stored else 0
            while message := await self._stack.bus.next_after(EVENTS, "converter.v1.>", last):
                stored.append(message)
                last = message.sequence
            genuine = [message for message in stored if FORGED not in message.headers]
            for message in self._chance.sample(genuine, min(AT_ONCE, len(genuine), count - self.sent_again)):
                await self._again(message)
            await asyncio.sleep(0.01)

    async def no_events(self, job_id: str) -> None:
        """Bring each service, as work on `job_id`, everything that is no event."""
        example = await self._stack.bus.next_after(EVENTS, "converter.v1.>", 0)
        assert example is not None
        for service, kind in FEEDS.items():
            for payload in malformed(job_id, example.data):
                subject = f"converter.v1.{job_id}.{kind}"
                await self._buses[_author(subject)].store(subject, payload, headers={FORGED: "yes"})
                self.malformed[service] += 1

    async def of_a_later_release(self, job_id: str) -> None:
        """Store the job's next event: of a kind that nobody knows today, with a field that nobody knows today."""
        root = f"converter.v1.{job_id}.>"
        while True:
            messages = await self._messages(root)
            genuine = [message for message in messages if FORGED not in message.headers][-1]
            job = json.loads(genuine.data)["job"]
            if job is None:
                return
            job |= {"revision": job["revision"] + 1, "receipt": "kept"}
            event_id = f"{job_id}-noted-{job['revision']}"
            described = {name: value for name, value in genuine.headers.items() if name.startswith("ce-")}
            described |= {"ce-id": event_id, "ce-type": "converter.job.noted.v1", "Nats-Msg-Id": event_id}
            payload = json.dumps({"fact": {"type": "job.noted", "at": "2026-01-01T00:00:00.000Z"}, "job": job})
            with contextlib.suppress(WrongSequence):
                await self._buses["api-gateway"].store(
                    f"converter.v1.{job_id}.job.noted",
                    payload.encode(),
                    headers=described,
                    expected=messages[-1].sequence,
                    expected_on=root,
                )
                return

    async def hand_back(self, service: str) -> None:
        """Take work from the service, now and then, and hand it back late: it comes again, and in another order."""
        while True:
            delivery = await next_delivery(self._buses[service], EVENTS, service, wait_s=0.5)
            if delivery is not None:
                await delivery.nak(self._chance.uniform(0.1, LATEST_S))
                self.handed_back += 1
            await asyncio.sleep(self._chance.uniform(0, 0.5))

    async def _again(self, message: StoredMessage) -> None:
        """As a client does that had no answer; without its id as if so much time had passed that the server forgot."""
        headers = dict(message.headers)
        if self._chance.random() < 0.5:
            headers.pop("Nats-Msg-Id")
        with contextlib.suppress(WrongSequence):
            sequence = await self._buses[_author(message.subject)].store(message.subject, message.data, headers=headers)
            assert sequence == message.sequence, f"{message.subject} is stored twice"
        self.sent_again += 1

    async def _messages(self, subject: str) -> list[StoredMessage]:
        found: list[StoredMessage] = []
        while message := await self._stack.bus.next_after(EVENTS, subject, found[-1].sequence if found else 0):
            found.append(message)
        return found


def malformed(job_id: str, example: bytes) -> Iterator[bytes]:
    """What is no event of `job_id`; `example` is what a first event looks like."""
    yield from (b"", b"no event", b"\xff\x00", b"null", b"[]", b"{}", b'{"fact": {}, "job": null}')
    event = json.loads(example)
    own = event["job"] | {"job_id": job_id}
    for wrong in (
        own | {"job_id": uuid7()},
        own | {"status": "gone"},
        own | {"revision": "1"},
        own | {"request": None},
        {"job_id": job_id},
        own | {"stages": "x" * 200_000},
    ):
        yield json.dumps(event | {"job": wrong}).encode()
    deep = b"[" * 50_000 + b"]" * 50_000
    yield from (deep, b'{"fact": {}, "job": %b}' % deep, b'{"fact": %b, "job": null}' % deep)


def _author(subject: str) -> str:
    """Whose event is published on `subject`."""
    match subject.split(".")[3:]:
        case ["stage", _, stage]:
            return f"stage-{stage}"
        case ["promotion", "completed"]:
            return "promoter"
    return "api-gateway"
