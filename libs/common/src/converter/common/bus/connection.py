"""A connection to JetStream, in the few verbs that this system uses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Self

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from converter.common.access import inbox
from converter.common.bus.connection_events import ConnectionEvents
from converter.common.bus.errors import (
    FAULTS,
    FULL,
    NO_MESSAGE,
    WRONG_LAST_SEQUENCE,
    BusFull,
    BusRefused,
    EventBusUnavailable,
    WrongSequence,
    unavailable,
)
from converter.common.bus.feed import Feed
from converter.common.bus.healing import Healing
from converter.common.bus.messages import REQUEST_TIMEOUT_S, Followed, StoredMessage, of_api, of_direct
from converter.common.service import Unreachable
from converter.common.settings import NatsSettings

CONNECT_TIMEOUT_S = 5.0
ROUND_TRIP_TIMEOUT_S = 2.0
PING_INTERVAL_S = 3
"""A server that is frozen keeps its connections; others of its cluster are tried when this long thrice says nothing."""
BATCH_MAX_BYTES = 4 << 20
"""A batch ends early after about as much."""


class Bus:
    """A connection that heals itself for as long as the process lives."""

    def __init__(self, client: Client, address: str, events: ConnectionEvents) -> None:
        self._client, self._events = client, events
        self._healing = Healing(client, self.round_trip)
        self.address = address
        """Where it was told to connect."""

    @classmethod
    async def connect(cls, settings: NatsSettings, *, name: str, on_lost: Callable[[], None] = lambda: None) -> Self:
        """Connect once, within `CONNECT_TIMEOUT_S`; later losses are healed in the background.

        Args:
            settings: where, and who asks.
            name: the user; its inbox is named after it.
            on_lost: called when the connection will not come back, as when the server no longer knows the user.

        Raises:
            Unreachable: there is no server at the address, or it refuses these credentials.
        """
        client, events = Client(), ConnectionEvents(settings.nats_url, on_lost)
        bus = cls(client, settings.nats_url, events)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await client.connect(
                    settings.nats_url.split(","),
                    name=name,
                    error_cb=events.on_error,
                    disconnected_cb=events.on_disconnect,
                    reconnected_cb=events.on_reconnect,
                    closed_cb=events.on_closed,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.25,  # type: ignore[arg-type]  # seconds; fractions work
                    connect_timeout=2,
                    ping_interval=PING_INTERVAL_S,  # two that stay unanswered end the connection
                    inbox_prefix=inbox(name),
                    tls=_tls(settings),
                    nkeys_seed=str(settings.nats_nkey_seed_file) if settings.nats_nkey_seed_file else None,
                )
                await bus._wait_for_jetstream()
        except (TimeoutError, OSError, nats.errors.Error) as error:
            with contextlib.suppress(Exception):
                await client.close()
            why = events.problem or str(error) or type(error).__name__
            raise Unreachable("NATS", settings.nats_url, why) from error
        events.open = True
        await bus._healing.begin()
        return bus

    async def close(self) -> None:
        """Send what is buffered, then end the connection."""
        self._events.open = False
        await self._healing.end()
        for ending in (partial(self._client.flush, timeout=1), self._client.close):
            with contextlib.suppress(*FAULTS):  # the server may be on its way down, too
                await ending()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _wait_for_jetstream(self) -> None:
        """A server that has just been started takes connections before it can store anything."""
        while True:
            with contextlib.suppress(EventBusUnavailable, BusRefused):
                await self.api("INFO")
                return
            await asyncio.sleep(0.1)

    @property
    def connection_number(self) -> int | None:
        """Counts the connections that there have been; none while there is none."""
        return self._client.stats["reconnects"] if self._client.is_connected else None

    @property
    def answered_at(self) -> float:
        """When the server last answered, on the monotonic clock; it is asked every few seconds."""
        return self._healing.answered_at

    async def round_trip(self) -> float:
        """Seconds that JetStream takes to answer, in a cluster its leader.

        Raises:
            EventBusUnavailable: it does not, within two seconds, or the server knows of no leader.
        """
        began = time.perf_counter()
        with unavailable("ping"):
            if not self._client.is_connected:  # the library would ask later
                raise nats.errors.ConnectionReconnectingError
        # Not the library's `flush`, which succeeds even where nothing reads the server's answers any more.
        with contextlib.suppress(BusRefused):  # which is an answer
            await self._request("$JS.API.INFO", b"", timeout_s=ROUND_TRIP_TIMEOUT_S)
        return time.perf_counter() - began

    async def emit(self, subject: str, payload: bytes) -> None:
        """Publish without waiting whether anything stores it."""
        with unavailable(subject):
            await self._client.publish(subject, payload)

    @contextlib.asynccontextmanager
    async def hear(self, subject: str, heard: Callable[[str, bytes], Awaitable[None]]) -> AsyncIterator[None]:
        """Call `heard(subject, payload)` for what is published while the context is open; nothing is replayed."""

        async def on_message(message: Msg) -> None:
            await heard(message.subject, message.data)

        with unavailable(subject):
            subscription = await self._client.subscribe(subject, cb=on_message)
        try:
            yield
        finally:
            await _unsubscribed(subscription)

    @contextlib.asynccontextmanager
    async def follow(self, stream: str, after: int, heard: Callable[[Followed], None]) -> AsyncIterator[None]:
        """Call `heard` with each message that `stream` stores past the sequence `after`, in order, as it is stored.

        What is lost on the way, as with the connection, is not sent again; the server forgets a follower that is gone.

        Raises:
            BusRefused: there is no such stream.
            EventBusUnavailable: no answer.
        """

        async def on_message(message: Msg) -> None:
            numbers = message.metadata.sequence
            heard(
                Followed(message.subject, numbers.stream, numbers.consumer, message.data, dict(message.headers or {}))
            )

        answers = self._client.new_inbox()
        config = {
            "deliver_subject": answers,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": after + 1,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
        }
        with unavailable(answers):
            subscription = await self._client.subscribe(answers, cb=on_message)
        try:
            await self.api(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
            yield
        finally:
            await _unsubscribed(subscription)

    async def last_sequence(self, stream: str) -> int:
        """How far `stream` has come, from its leader.

        Raises:
            BusRefused: there is no such stream.
            EventBusUnavailable: no answer.
        """
        return int((await self.api(f"STREAM.INFO.{stream}"))["state"]["last_seq"])

    async def store(
        self,
        subject: str,
        payload: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        expected: int | None = None,
        expected_on: str | None = None,
    ) -> int:
        """Publish into the stream that holds `subject`; the sequence it got.

        Args:
            subject: where.
            payload: what.
            headers: what else.
            expected: refuse unless this is the sequence of the last message (0: there is none) …
            expected_on: … on this subject, which may have wildcards (default: `subject`).

        Raises:
            WrongSequence: the condition does not hold.
            BusRefused: the server refused, as when it is full; nothing is stored.
            EventBusUnavailable: no answer; it may be stored, now or later.
        """
        headers = dict(headers or {})
        if expected is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
            headers["Nats-Expected-Last-Subject-Sequence-Subject"] = expected_on or subject
        answer = await self._request(subject, payload, headers)
        return int(answer["seq"])

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """The last message on `subject` (wildcards allowed), from the stream's leader."""
        return await self._get(stream, {"last_by_subj": subject})

    async def next_after(self, stream: str, subject: str, sequence: int) -> StoredMessage | None:
        """The first message on `subject` (wildcards allowed) past `sequence`, from the stream's leader."""
        return await self._get(stream, {"seq": sequence + 1, "next_by_subj": subject})

    async def batch_after(self, stream: str, subject: str, sequence: int, *, count: int) -> list[StoredMessage]:
        """Up to `count` messages on `subject` (wildcards allowed) past `sequence`, in one exchange; none at the end.

        Any server that has the stream answers, so the last messages may still be missing. The stream must allow
        direct access.

        Raises:
            BusRefused: the server does not take the request.
            EventBusUnavailable: no answer, or it broke off.
        """
        api = f"$JS.API.DIRECT.GET.{stream}"
        query = {"seq": sequence + 1, "next_by_subj": subject, "batch": count, "max_bytes": BATCH_MAX_BYTES}
        answers, found = self._client.new_inbox(), []
        with unavailable(api):
            subscription = await self._client.subscribe(answers)
            try:
                await self._client.publish(api, msgspec.json.encode(query), reply=answers)
                while True:
                    message = await subscription.next_msg(timeout=REQUEST_TIMEOUT_S)
                    headers = message.headers or {}
                    match headers.get("Status"):
                        case None:
                            found.append(of_direct(headers, message.data))
                        case "204" | "404":  # the end of the batch, and of the stream
                            return found
                        case "503":
                            raise EventBusUnavailable(f"{api}: nobody answers")
                        case status:
                            raise BusRefused(api, int(status), headers.get("Description", ""))
            finally:
                await _unsubscribed(subscription)

    async def subjects(self, stream: str, subject: str) -> list[str]:
        """Every subject that matches `subject` and has a message."""
        found: list[str] = []
        while True:
            query = {"subjects_filter": subject, "offset": len(found)}
            state = (await self.api(f"STREAM.INFO.{stream}", query))["state"]
            page = list(state.get("subjects") or {})
            found += page
            if not page or len(found) >= state.get("num_subjects", 0):
                return found

    @contextlib.asynccontextmanager
    async def feed(self, stream: str, durable: str) -> AsyncIterator[Feed]:
        """The messages of a durable pull consumer, while the context is open."""
        feed = Feed(self._client, f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}")
        with unavailable(feed.subject):
            subscription = await self._client.subscribe(feed.inbox, cb=feed.on_message)
        try:
            yield feed
        finally:
            feed.end()
            await _unsubscribed(subscription)

    async def api(self, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request of the JetStream API, `$JS.API.<verb>`.

        Raises:
            BusRefused: with the server's code and words.
            EventBusUnavailable: no answer.
        """
        return await self._request(f"$JS.API.{verb}", msgspec.json.encode(body) if body else b"")

    async def _get(self, stream: str, query: dict[str, Any]) -> StoredMessage | None:
        try:
            found = (await self.api(f"STREAM.MSG.GET.{stream}", query))["message"]
        except BusRefused as refused:
            if refused.code == NO_MESSAGE:
                return None
            raise
        return of_api(found)

    async def _request(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> dict[str, Any]:
        with unavailable(subject):
            message = await self._client.request(
                subject, payload, timeout=timeout_s, headers=dict(headers) if headers else None
            )
            answer = msgspec.json.decode(message.data, type=dict[str, Any])
        if error := answer.get("error"):
            code, description = int(error.get("err_code", 0)), str(error.get("description", ""))
            if code == WRONG_LAST_SEQUENCE:
                raise WrongSequence(description)
            if code in FULL:  # the server calls that unavailable, too
                raise BusFull(subject, code, description)
            if error.get("code") == 503:  # noqa: PLR2004 - HTTP's number, as the server uses it
                raise EventBusUnavailable(f"{subject}: {description} ({code})")
            raise BusRefused(subject, code, description)
        return answer


async def _unsubscribed(subscription: Subscription) -> None:
    with contextlib.suppress(*FAULTS):
        await subscription.unsubscribe()


def _tls(settings: NatsSettings) -> ssl.SSLContext | None:
    if settings.nats_ca_file is None:
        return None
    return ssl.create_default_context(cafile=os.fspath(settings.nats_ca_file))
