"""Which job of a user is active, and which jobs a user has.

The lock is a pointer to the user's latest job and is held exactly while that job is active. There is no release that
could be lost: whoever wants the lock looks at the job that it points to.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import msgspec
from msgspec import Struct

from converter.common.bus import Bus, EventBusUnavailable, WrongSequence
from converter.common.entries import entry_in
from converter.common.eventlog import RETRY_PAUSE_S, SETTLE_TIMEOUT_S, JobLog
from converter.common.lifecycle import State
from converter.common.topology import ACTIVE_JOBS, JOBS_BY_USER, bucket_key, bucket_stream
from converter.contracts.facts import JobDeleted
from converter.contracts.job import JobRecord, Timestamp, moment, timestamp

REMOVAL = {"KV-Operation": "DEL", "Nats-TTL": "60s"}
"""Takes a key away; the mark that this leaves goes by itself."""
ENTRIES_AT_ONCE = 256
CLAIM_GRACE = timedelta(seconds=30)
"""A pointer older than this whose job was never created belongs to a gateway that died in between."""


class UserHasActiveJob(Exception):
    """The user's lock is held by `job_id`; `active` is that job, or `None` while it is being created."""

    def __init__(self, job_id: str, active: JobRecord | None) -> None:
        super().__init__(f"job {job_id} of this user is active")
        self.job_id, self.active = job_id, active


class _Pointer(Struct, frozen=True):
    job_id: str
    claimed_at: Timestamp


def client_token(client_id: str) -> str:
    """The client in a subject: percent-encoded, so that it is one token whatever it is called."""
    return quote(client_id, safe="").replace(".", "%2E")


def user_key(client_id: str, user_id: str) -> str:
    """`<client>.<user>` in a subject; dots of the user (it has no `=`) as `=`."""
    return f"{client_token(client_id)}.{user_id.replace('.', '=')}"


class ActiveJobs:
    """At most one active job for each (client, user).

    Args:
        bus: the connection.
        job_log: tells whether the job that holds a lock is still active.
        grace: how long a claim may stand without its job.
    """

    def __init__(self, bus: Bus, job_log: JobLog, *, grace: timedelta = CLAIM_GRACE) -> None:
        self._bus, self._log, self._grace = bus, job_log, grace

    async def holder(self, client_id: str, user_id: str) -> UserHasActiveJob | None:
        """Who holds the lock now; a look, not a claim."""
        pointer, _ = await self._pointer(bucket_key(ACTIVE_JOBS, user_key(client_id, user_id)))
        return await self._held_by(pointer) if pointer else None

    async def claim(self, client_id: str, user_id: str, job_id: str) -> None:
        """Take the lock for `job_id`, right before its `job.created` is published.

        Raises:
            UserHasActiveJob: another job holds it.
            BusRefused: it cannot be written.
            EventBusUnavailable: it could not be found out; the claim may stand, and heals after the grace.
        """
        subject = bucket_key(ACTIVE_JOBS, user_key(client_id, user_id))
        payload = msgspec.json.encode(_Pointer(job_id, timestamp()))
        give_up_at = time.monotonic() + SETTLE_TIMEOUT_S
        while True:
            try:
                pointer, sequence = await self._pointer(subject)
                if pointer and pointer.job_id == job_id:
                    return
                if pointer and (held := await self._held_by(pointer)):
                    raise held
                await self._bus.store(subject, payload, expected=sequence)
            except WrongSequence:
                continue
            except EventBusUnavailable:
                if time.monotonic() >= give_up_at:
                    raise
                await asyncio.sleep(RETRY_PAUSE_S)
            else:
                return

    async def forget(self, user: str, job_id: str) -> None:
        """Take away the pointer of `user` (see `user_key`) if it is still to `job_id`, which is no job (any more)."""
        subject = bucket_key(ACTIVE_JOBS, user)
        pointer, sequence = await self._pointer(subject)
        if pointer and pointer.job_id == job_id:
            with suppress(WrongSequence):  # the user's next job has it
                await self._bus.store(subject, b"", headers=REMOVAL, expected=sequence)

    async def _pointer(self, subject: str) -> tuple[_Pointer | None, int]:
        found = await self._bus.last(bucket_stream(ACTIVE_JOBS), subject)
        return entry_in(found, _Pointer), found.sequence if found else 0

    async def _held_by(self, pointer: _Pointer) -> UserHasActiveJob | None:
        state = await self._log.read(pointer.job_id)
        if state is None:
            if datetime.now(UTC) - moment(pointer.claimed_at) < self._grace:
                return UserHasActiveJob(pointer.job_id, None)
            # Its gateway may only be asleep: from here on its job.created is refused.
            state = await self._log.append(pointer.job_id, supersede)
        return UserHasActiveJob(pointer.job_id, state) if isinstance(state, JobRecord) and state.active else None


def supersede(state: State) -> JobDeleted | None:
    """Decides for `JobLog.append` that a job which does not exist never will."""
    return JobDeleted(at=timestamp(), reason="superseded") if state is None else None


class ListedJob(Struct, frozen=True):
    """An entry of the index: a job of `user` (see `user_key`)."""

    user: str
    job_id: str


class UserJobs:
    """The ids of a user's jobs. Written before the job is created, so an id may have no job."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def add(self, client_id: str, user_id: str, job_id: str) -> None:
        """List `job_id` among the user's jobs."""
        await self._bus.store(bucket_key(JOBS_BY_USER, f"{user_key(client_id, user_id)}.{job_id}"), b"")

    async def newest_first(self, client_id: str, user_id: str) -> list[str]:
        """Every id, newest first (ids are UUIDv7 and sort by time)."""
        pattern = bucket_key(JOBS_BY_USER, f"{user_key(client_id, user_id)}.*")
        found = await self._bus.subjects(bucket_stream(JOBS_BY_USER), pattern)
        return sorted((subject.rpartition(".")[2] for subject in found), reverse=True)

    async def every(self) -> AsyncIterator[ListedJob]:
        """Every entry of every user, in the order in which they were made; the latest may still be missing."""
        stream, pattern, sequence = bucket_stream(JOBS_BY_USER), bucket_key(JOBS_BY_USER, ">"), 0
        while batch := await self._bus.batch_after(stream, pattern, sequence, count=ENTRIES_AT_ONCE):
            sequence = batch[-1].sequence
            for found in batch:
                if "KV-Operation" not in found.headers:
                    user, _, job_id = found.subject.removeprefix(bucket_key(JOBS_BY_USER, "")).rpartition(".")
                    yield ListedJob(user, job_id)

    async def forget(self, entry: ListedJob) -> None:
        """Take an entry away."""
        await self._bus.store(bucket_key(JOBS_BY_USER, f"{entry.user}.{entry.job_id}"), b"", headers=REMOVAL)
