"""The one module that knows nats-py: a connection to JetStream, in the few verbs that this system uses.

    EventBusUnavailable     the server cannot be reached or does not answer in time; a write may or may not be stored
    WrongSequence           a conditional write lost: somebody wrote before
    BusRefused              the server said no for another reason (its code and words)

JetStream's API is spoken in its own JSON (`$JS.API.…`), so a feature of the server needs no support by the library.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Self

import msgspec
import nats.errors
import structlog
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg

from converter.common.service import Unreachable
from converter.common.settings import NatsSettings

log = structlog.get_logger()

CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 5.0
WRONG_LAST_SEQUENCE = 10071
NOT_FOUND = frozenset({10037, 10059, 10014})  # message, stream, consumer


class EventBusUnavailable(Exception):
    """The event bus did not answer; what was being written may or may not be stored."""


class WrongSequence(Exception):
    """Another write came before this conditional one."""


class BusRefused(Exception):
    """The server refused a request."""

    def __init__(self, subject: str, code: int, description: str) -> None:
        super().__init__(f"{subject}: {description} ({code})")
        self.code, self.description = code, description


class StoredMessage(Struct, frozen=True):
    """A message as its stream keeps it. `sequence` counts within the stream; `stored_at` is the server's clock."""

    subject: str
    sequence: int
    data: bytes
    headers: dict[str, str]
    stored_at: datetime


class Delivery:
    """A message that a durable consumer handed out and that waits to be settled."""

    def __init__(self, message: Msg) -> None:
        self._message = message
        self.subject, self.data = message.subject, message.data
        self.headers: Mapping[str, str] = message.headers or {}
        metadata = message.metadata
        self.sequence: int = metadata.sequence.stream
        self.deliveries: int = metadata.num_delivered or 1

    async def in_progress(self) -> None:
        """Start the consumer's `ack_wait` anew."""
        with _unavailable("in_progress"):
            await self._message.in_progress()

    async def ack(self) -> None:
        """Acknowledge, and wait until the server knows.

        Raises:
            EventBusUnavailable: the server did not confirm; the message may be delivered again.
        """
        with _unavailable("ack"):
            await self._message.ack_sync(timeout=REQUEST_TIMEOUT_S)

    async def nak(self, delay_s: float = 0.0) -> None:
        """Hand it back, to be delivered again after `delay_s`."""
        with _unavailable("nak"):
            await self._message.nak(delay=delay_s or None)

    async def term(self) -> None:
        """Set it aside for good."""
        with _unavailable("term"):
            await self._message.term()


class Bus:
    """A connection that heals itself for as long as the process lives."""

    def __init__(self, client: Client, address: str) -> None:
        self._client = client
        self.address = address
        """Where it was told to connect."""
        self._open = False

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
        client = Client()
        bus = cls(client, settings.nats_url)
        problem: list[str] = []

        async def on_error(error: Exception) -> None:
            problem.append(str(error) or type(error).__name__)
            log.warning("bus.error", error=problem[-1])

        async def on_disconnect() -> None:
            log.warning("bus.disconnected")

        async def on_reconnect() -> None:
            log.info("bus.reconnected")

        async def on_closed() -> None:
            if bus._open:
                log.critical("bus.lost", address=settings.nats_url, error=problem[-1] if problem else None)
                on_lost()

        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await client.connect(
                    settings.nats_url.split(","),
                    name=name,
                    error_cb=on_error,
                    disconnected_cb=on_disconnect,
                    reconnected_cb=on_reconnect,
                    closed_cb=on_closed,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.25,  # type: ignore[arg-type]  # seconds; fractions work
                    connect_timeout=2,
                    ping_interval=10,
                    inbox_prefix=f"_INBOX_{name}",
                    tls=_tls(settings),
                    nkeys_seed=str(settings.nats_nkey_seed_file) if settings.nats_nkey_seed_file else None,
                )
                await bus._wait_for_jetstream()
        except (TimeoutError, OSError, nats.errors.Error) as error:
            with contextlib.suppress(Exception):
                await client.close()
            why = problem[-1] if problem else str(error) or type(error).__name__
            raise Unreachable("NATS", settings.nats_url, why) from error
        bus._open = True
        return bus

    async def close(self) -> None:
        """Send what is buffered, then end the connection."""
        self._open = False
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            await self._client.flush(timeout=1)
        await self._client.close()

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

    async def round_trip(self) -> float:
        """Seconds that the server takes to answer.

        Raises:
            EventBusUnavailable: it does not, within two seconds.
        """
        began = time.perf_counter()
        with _unavailable("ping"):
            await self._client.flush(timeout=2)
        return time.perf_counter() - began

    async def emit(self, subject: str, payload: bytes) -> None:
        """Publish without waiting whether anything stores it."""
        with _unavailable(subject):
            await self._client.publish(subject, payload)

    @contextlib.asynccontextmanager
    async def hear(self, subject: str, heard: Callable[[str, bytes], Awaitable[None]]) -> AsyncIterator[None]:
        """Call `heard(subject, payload)` for what is published while the context is open; nothing is replayed."""

        async def on_message(message: Msg) -> None:
            await heard(message.subject, message.data)

        with _unavailable(subject):
            subscription = await self._client.subscribe(subject, cb=on_message)
        try:
            yield
        finally:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

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
            BusRefused: the server refused; nothing is stored.
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

    async def next_delivery(self, stream: str, durable: str, *, wait_s: float) -> Delivery | None:
        """Ask a durable pull consumer for one message; `None` when it has none within `wait_s`.

        Keep `wait_s` short: a request that is under way while the server restarts is lost.

        Raises:
            BusRefused: there is no such consumer.
            EventBusUnavailable: no answer.
        """
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        query = msgspec.json.encode({"batch": 1, "expires": int(wait_s * 1e9)})
        with _unavailable(subject):
            # A delivery keeps its own subject, so it needs an inbox of its own rather than the shared one.
            message = await self._client.request(subject, query, timeout=wait_s + 1.0, old_style=True)
        status = (message.headers or {}).get("Status")
        if status is None:
            return Delivery(message)
        if status in {"404", "408"}:
            return None
        raise BusRefused(subject, int(status), (message.headers or {}).get("Description", ""))

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
            if refused.code == 10037:  # noqa: PLR2004 - no message found, JetStream's error table
                return None
            raise
        return StoredMessage(
            subject=found["subject"],
            sequence=found["seq"],
            data=base64.b64decode(found.get("data", "")),
            headers=_headers(base64.b64decode(found.get("hdrs", ""))),
            stored_at=datetime.fromisoformat(found["time"]),
        )

    async def _request(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        with _unavailable(subject):
            message = await self._client.request(
                subject, payload, timeout=REQUEST_TIMEOUT_S, headers=dict(headers) if headers else None
            )
        answer: dict[str, Any] = msgspec.json.decode(message.data)
        if error := answer.get("error"):
            code, description = int(error.get("err_code", 0)), str(error.get("description", ""))
            if code == WRONG_LAST_SEQUENCE:
                raise WrongSequence(description)
            if error.get("code") == 503:  # noqa: PLR2004 - HTTP's number, as the server uses it
                raise EventBusUnavailable(f"{subject}: {description} ({code})")
            raise BusRefused(subject, code, description)
        return answer


@contextlib.contextmanager
def _unavailable(what: str) -> Any:  # noqa: ANN401 - a context manager's own type says nothing here
    try:
        yield
    except (nats.errors.Error, TimeoutError, OSError) as error:
        raise EventBusUnavailable(f"{what}: {error or type(error).__name__}") from error


def _headers(raw: bytes) -> dict[str, str]:
    lines = raw.decode("utf-8", "replace").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name: value.strip() for name, _, value in pairs}


def _tls(settings: NatsSettings) -> ssl.SSLContext | None:
    if settings.nats_ca_file is None:
        return None
    return ssl.create_default_context(cafile=os.fspath(settings.nats_ca_file))
