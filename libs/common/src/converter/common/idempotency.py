"""Requests that may be sent twice and have their effect once (`Idempotency-Key`).

An entry says which job a client's key stands for. It is made when the request begins and renewed while its body
arrives, so that a second one is told to wait; before the user's lock is claimed it learns the fingerprint of the
request, and from then on the key belongs to the job. What a crash leaves behind is taken over: a body that nobody
renews, or a job that was never created.

    InProgress    the first request with this key has not been answered yet
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import msgspec
import structlog
from msgspec import Struct

from converter.common.background import Repeated
from converter.common.bus import Bus, BusRefused, EventBusUnavailable, WrongSequence
from converter.common.entries import entry_in
from converter.common.eventlog import JobLog
from converter.common.lifecycle import Deleted, State
from converter.common.topology import IDEMPOTENCY, bucket_key, bucket_stream
from converter.common.unbroken import to_the_end
from converter.common.users import client_token, supersede
from converter.contracts.job import JobRecord, Timestamp, moment, timestamp

log = structlog.get_logger()

RENEWALS_PER_GRACE = 4


class InProgress(Exception):
    """Another request with this key is being served."""


class Fingerprint(Struct, frozen=True):
    """What a request is known by; repeats agree in one of the two, of which a release before this one has the first."""

    whole: str
    """Of all fields and files."""
    by_digest: str = ""
    """The same without what merely says how a model came whose digest is there."""

    def matches(self, other: Fingerprint) -> bool:
        """Whether both are of the same request."""
        return self.whole == other.whole or self.by_digest == other.by_digest != ""


class Earlier(Struct, frozen=True):
    """What an earlier request with the key has led to: the job as it was created, or that it has been deleted since."""

    fingerprint: Fingerprint
    job: JobRecord | Deleted


class _Entry(Struct, frozen=True):
    job_id: str
    fingerprint: str
    """Empty while the request's body arrives."""
    at: Timestamp
    by_digest: str = ""


class Hold:
    """A key that this request holds; in the end it belongs to the job, or is free again."""

    def __init__(self, bus: Bus, subject: str, job_id: str, sequence: int) -> None:
        self._bus, self._subject, self._job_id, self._sequence = bus, subject, job_id, sequence
        self._writing = asyncio.Lock()
        self._fingerprint = Fingerprint("")
        self._kept = False

    async def begin(self) -> None:
        """Tell others to wait; the body is still to come.

        Raises:
            InProgress: another request was first.
        """
        await self._write()

    async def bind(self, fingerprint: Fingerprint) -> None:
        """The body has come; from now on the key stands for the job, unless `release` is called.

        Raises:
            InProgress: another request has taken the key over, because this one seemed dead.
        """
        self._fingerprint = fingerprint
        await self._write()
        self._kept = True

    def release(self) -> None:
        """The job does not exist after all."""
        self._kept = False

    async def renew(self) -> None:
        """Show that the body is still arriving."""
        with suppress(EventBusUnavailable, BusRefused, InProgress):  # `bind` will tell
            await self._write()

    async def end(self) -> None:
        """Free the key unless it has been bound."""
        if not self._kept:
            try:
                await self._bus.store(self._subject, b"", headers={"KV-Operation": "DEL"}, expected=self._sequence)
            except (EventBusUnavailable, BusRefused, WrongSequence) as error:
                log.warning("idempotency.not_freed", error=str(error))  # it is free after the grace

    async def _write(self) -> None:
        async with self._writing:
            known_by = self._fingerprint
            entry = msgspec.json.encode(_Entry(self._job_id, known_by.whole, timestamp(), known_by.by_digest))
            try:
                self._sequence = await self._bus.store(self._subject, entry, expected=self._sequence)
            except WrongSequence:
                # It may have been ourselves: a write whose answer was lost.
                self._sequence = await self._own_sequence()
                try:
                    self._sequence = await self._bus.store(self._subject, entry, expected=self._sequence)
                except WrongSequence:
                    raise InProgress from None

    async def _own_sequence(self) -> int:
        found = await self._bus.last(bucket_stream(IDEMPOTENCY), self._subject)
        entry = entry_in(found, _Entry)
        if not found or not entry or entry.job_id != self._job_id:
            raise InProgress
        return found.sequence


class IdempotencyKeys:
    """Which job each client's keys stand for.

    Args:
        bus: the connection.
        job_log: tells what has become of a job.
        grace: how long a request may be silent before it counts as dead.
    """

    def __init__(self, bus: Bus, job_log: JobLog, *, grace: timedelta) -> None:
        self._bus, self._log, self._grace = bus, job_log, grace

    async def earlier(self, client_id: str, key: str) -> Earlier | None:
        """What a request with this key has led to.

        Raises:
            InProgress: it has not been answered yet.
        """
        found, _ = await self._earlier(_subject(client_id, key))
        return found

    @asynccontextmanager
    async def held(self, client_id: str, key: str, job_id: str) -> AsyncIterator[Hold]:
        """Hold `key` for the job `job_id`, which is to be created.

        Raises:
            InProgress: another request has the key.
        """
        subject = _subject(client_id, key)
        found, sequence = await self._earlier(subject)
        if found is not None:
            raise InProgress
        hold = Hold(self._bus, subject, job_id, sequence)
        await hold.begin()
        try:
            async with Repeated(hold.renew, self._grace.total_seconds() / RENEWALS_PER_GRACE):
                yield hold
        finally:
            await to_the_end(hold.end())

    async def _earlier(self, subject: str) -> tuple[Earlier | None, int]:
        """What the key stands for, and the sequence of its entry."""
        found = await self._bus.last(bucket_stream(IDEMPOTENCY), subject)
        entry = entry_in(found, _Entry)
        if found is None or entry is None:
            return None, found.sequence if found else 0
        fresh = datetime.now(UTC) - moment(entry.at) < self._grace
        if not entry.fingerprint:
            if fresh:
                raise InProgress
            return None, found.sequence
        state: State = await self._log.read(entry.job_id)
        if state is None:
            if fresh:
                raise InProgress
            # Its gateway may only be asleep: from here on its job.created is refused.
            state = await self._log.append(entry.job_id, supersede)
        created = await self._log.creation(entry.job_id)
        if created is None:
            return None, found.sequence
        fingerprint = Fingerprint(entry.fingerprint, entry.by_digest)
        return Earlier(fingerprint, state if isinstance(state, Deleted) else created), found.sequence


def _subject(client_id: str, key: str) -> str:
    return bucket_key(IDEMPOTENCY, f"{client_token(client_id)}.{hashlib.sha256(key.encode()).hexdigest()}")
