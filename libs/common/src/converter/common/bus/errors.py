"""The ways in which the event bus does not do what it is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgspec
import nats.errors

NO_MESSAGE = 10037
NOT_FOUND = frozenset({NO_MESSAGE, 10059, 10014})
"""Codes of JetStream's error table: no such message, stream, consumer."""
WRONG_LAST_SEQUENCE = 10071
FULL = frozenset({10077, 10047, 10023, 10002})
"""What has reached its limit: the stream, the server's storage, its resources, the account."""


FAULTS = (nats.errors.Error, TimeoutError, OSError, RuntimeError, msgspec.MsgspecError)
"""What the library raises, RuntimeError among it, which is uvloop's for a connection that closes at that very moment;
and an answer that cannot be read."""


class EventBusUnavailable(Exception):
    """The event bus did not answer; what was being written may or may not be stored."""


class WrongSequence(Exception):
    """Another write came before this conditional one."""


class BusRefused(Exception):
    """The server refused a request."""

    def __init__(self, subject: str, code: int, description: str) -> None:
        super().__init__(f"{subject}: {description} ({code})")
        self.code, self.description = code, description


class BusFull(BusRefused):
    """The stream, or the server, has reached its limit; nothing is stored."""


@contextlib.contextmanager
def unavailable(what: str) -> Iterator[None]:
    """Raises `EventBusUnavailable` in the place of `FAULTS`."""
    try:
        yield
    except FAULTS as error:
        raise EventBusUnavailable(f"{what}: {error or type(error).__name__}") from error
