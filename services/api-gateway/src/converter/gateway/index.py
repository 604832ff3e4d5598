"""Every job in a few words, newest first, so that a list need not read the records that are not on its page.

The index follows the bucket `job_state`, which the server keeps from the event log: one message for each job, that of
its last event. It reads what has changed since it last looked, without a consumer; nothing decides from it.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import Iterator

import msgspec
import structlog
from msgspec import Struct

from converter.common.bus import Bus, BusRefused, EventBusUnavailable, StoredMessage
from converter.common.topology import JOB_STATE, bucket_key, bucket_stream
from converter.contracts.job import JobStatus, Stage
from converter.gateway.internal.operators import StageOrEnd

log = structlog.get_logger()

BATCH = 500
"""Messages that are asked for at once, about 2 KB each."""
REFRESH_S = 5.0
"""How often it is looked without a request, so that a list never has much to catch up with."""


class JobFilter(Struct, frozen=True, kw_only=True):
    """Which jobs; what is not given allows all. `q`, in small letters, is a part of a file's name or of an id."""

    status: str | None = None
    client_id: str | None = None
    user_id: str | None = None
    platform: str | None = None
    q: str | None = None


class Entry(Struct, frozen=True, gc=False):
    """What a list looks for in a job; the status in both faces' words, the file's name in small letters."""

    status: StageOrEnd
    v1_status: JobStatus
    client_id: str
    user_id: str
    platform: str
    filename: str

    def fits(self, job_id: str, wanted: JobFilter) -> bool:
        """Whether the job is one of those wanted."""
        return (
            (wanted.status is None or wanted.status in (self.status, self.v1_status))
            and wanted.client_id in (None, self.client_id)
            and wanted.user_id in (None, self.user_id)
            and wanted.platform in (None, self.platform)
            and (wanted.q is None or wanted.q in self.filename or wanted.q in job_id)
        )


class _Model(Struct):
    filename: str


class _Request(Struct):
    client_id: str
    user_id: str
    platform: str
    model: _Model


class _Job(Struct):
    status: JobStatus
    stage: Stage | None
    request: _Request


class _Carried(Struct):
    job: _Job | None


_carried = msgspec.json.Decoder(_Carried)


class JobIndex:
    """The entries, as far as `refresh` has read.

    Args:
        bus: the connection.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._refreshing = asyncio.Lock()
        self._begin("")

    def _begin(self, bucket_made_at: str) -> None:
        """Know nothing of what the bucket holds that was made then."""
        self._bucket_made_at = bucket_made_at
        self._read_to = 0
        self._entries: dict[str, Entry] = {}
        self._ids: list[str] = []
        """Oldest first: ids are UUIDv7 and sort by time."""
        self._ids_of: dict[tuple[str, str], list[str]] = {}
        """In the same order, those with one value of one field."""

    async def refresh(self) -> None:
        """Read what has changed.

        Raises:
            EventBusUnavailable: it does not answer.
            BusRefused: the bucket is not provisioned.
        """
        stream, subject = bucket_stream(JOB_STATE), bucket_key(JOB_STATE, ">")
        async with self._refreshing:
            while messages := await self._bus.batch_after(stream, subject, self._read_to, count=BATCH):
                for message in messages:
                    self._take(message)
                self._read_to = messages[-1].sequence

    async def keep_fresh(self) -> None:
        """Refresh for ever, also where the bucket is made anew: its sequences then begin again."""
        while True:
            try:
                made_at = (await self._bus.api(f"STREAM.INFO.{bucket_stream(JOB_STATE)}"))["created"]
                async with self._refreshing:
                    if made_at != self._bucket_made_at:
                        self._begin(made_at)
                await self.refresh()
            except (EventBusUnavailable, BusRefused) as error:
                log.warning("index.not_refreshed", error=str(error))
            await asyncio.sleep(REFRESH_S)

    def find(self, wanted: JobFilter, before: str | None = None) -> Iterator[str]:
        """The ids of the jobs wanted, newest first; those older than the job `before`. Do not await in between."""
        # The rarest value of those asked for has the fewest jobs to look at.
        ids = min((self._ids_of.get(of, []) for of in _values(wanted)), key=len, default=self._ids)
        end = len(ids) if before is None else bisect_left(ids, before)
        for position in range(end - 1, -1, -1):
            job_id = ids[position]
            if self._entries[job_id].fits(job_id, wanted):
                yield job_id

    def waits(self, job_id: str, stage: Stage) -> bool | None:
        """Whether the job waits for the stage; none where the index does not have it, yet or any more."""
        entry = self._entries.get(job_id)
        if entry is None:
            return None
        return entry.v1_status is JobStatus.QUEUED and entry.status == StageOrEnd(stage.upper())

    def forget(self, job_id: str) -> None:
        """The job is gone."""
        if entry := self._entries.pop(job_id, None):
            _drop(self._ids, job_id)
            self._unlist(job_id, _values(entry))

    def _take(self, message: StoredMessage) -> None:
        job_id = message.subject.rpartition(".")[2]
        try:
            entry = _entry(message.data)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            log.warning("index.unreadable", job_id=job_id, error=str(error))
            return
        if entry is None:
            self.forget(job_id)
            return
        before = self._entries.get(job_id)
        had, has = _values(before) if before else frozenset(), _values(entry)
        if before is None:
            insort(self._ids, job_id)
        self._unlist(job_id, had - has)
        for value in has - had:
            insort(self._ids_of.setdefault(value, []), job_id)
        self._entries[job_id] = entry

    def _unlist(self, job_id: str, values: frozenset[tuple[str, str]]) -> None:
        for value in values:
            _drop(self._ids_of[value], job_id)
            if not self._ids_of[value]:
                del self._ids_of[value]


def _values(of: Entry | JobFilter) -> frozenset[tuple[str, str]]:
    """What is looked up by its exact value, with the fields; of a filter what it asks for."""
    found = [("status", of.status), *((name, getattr(of, name)) for name in ("client_id", "user_id", "platform"))]
    if isinstance(of, Entry):
        found.append(("status", of.v1_status))
    return frozenset((name, str(value)) for name, value in found if value is not None)


def _drop(ids: list[str], job_id: str) -> None:
    del ids[bisect_left(ids, job_id)]


def _entry(payload: bytes) -> Entry | None:
    """What the list needs of an event; none when the job is deleted.

    Raises:
        MsgspecError, ValueError: it is no event.
    """
    job = _carried.decode(payload).job
    if job is None:
        return None
    request = job.request
    return Entry(
        status=StageOrEnd.of(job.status, job.stage),
        v1_status=job.status,
        client_id=request.client_id,
        user_id=request.user_id,
        platform=request.platform,
        filename=request.model.filename.lower(),
    )
