"""What the bus hands out: stored messages, and deliveries that wait to be settled."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct
from nats.aio.msg import Msg

from converter.common.bus.errors import unavailable

REQUEST_TIMEOUT_S = 5.0


class StoredMessage(Struct, frozen=True):
    """A message as its stream keeps it. `sequence` counts within the stream; `stored_at` is the server's clock."""

    subject: str
    sequence: int
    data: bytes
    headers: dict[str, str]
    stored_at: datetime


class Followed(Struct, frozen=True):
    """A message that a stream has stored. `number` counts what its follower was sent: a gap says that some are lost."""

    subject: str
    sequence: int
    number: int
    data: bytes
    headers: dict[str, str]


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
        with unavailable("in_progress"):
            await self._message.in_progress()

    async def ack(self) -> None:
        """Acknowledge, and wait until the server knows.

        Raises:
            EventBusUnavailable: the server did not confirm; the message may be delivered again.
        """
        with unavailable("ack"):
            await self._message.ack_sync(timeout=REQUEST_TIMEOUT_S)

    async def nak(self, delay_s: float = 0.0) -> None:
        """Hand it back, to be delivered again after `delay_s`."""
        with unavailable("nak"):
            await self._message.nak(delay=delay_s or None)

    async def term(self) -> None:
        """Set it aside for good."""
        with unavailable("term"):
            await self._message.term()


def of_api(found: Mapping[str, Any]) -> StoredMessage:
    """A message as the JetStream API writes one."""
    return StoredMessage(
        subject=found["subject"],
        sequence=found["seq"],
        data=base64.b64decode(found.get("data", "")),
        headers=_headers(base64.b64decode(found.get("hdrs", ""))),
        stored_at=datetime.fromisoformat(found["time"]),
    )


def of_direct(headers: Mapping[str, str], data: bytes) -> StoredMessage:
    """A message that was asked for directly: what the stream knows of it is in its headers."""
    return StoredMessage(
        subject=headers["Nats-Subject"],
        sequence=int(headers["Nats-Sequence"]),
        data=data,
        headers=dict(headers),
        stored_at=datetime.fromisoformat(headers["Nats-Time-Stamp"]),
    )


def _headers(raw: bytes) -> dict[str, str]:
    lines = raw.decode("utf-8", "replace").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name: value.strip() for name, _, value in pairs}
