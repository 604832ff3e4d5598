"""The events of a job as they happen: one for each revision of its record, and progress in between."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec
from litestar import Response, get
from litestar.enums import MediaType

from converter.common.bus import EventBusUnavailable
from converter.contracts.facts import Event, JobDeleted
from converter.contracts.job import JobRecord
from converter.gateway.caller import Caller
from converter.gateway.endpoints.jobs import ApiRequest, current, own_job, shown_job
from converter.gateway.gateway import Gateway
from converter.gateway.http.errors import FieldError, bad_fields
from converter.gateway.http.sse import HEARTBEAT, HEARTBEAT_S, sse_answer, sse_event
from converter.gateway.http.written import shown
from converter.gateway.live import LOOK_S, Told, Watch, is_current
from converter.gateway.openapi.documentation import EVENT, Answer, Operation, Parameter
from converter.gateway.representation import job_resource, progress

_EVENTS = Operation(
    parameters=(
        Parameter(
            "Last-Event-ID",
            {"type": "string", "pattern": "^[0-9]{0,9}$"},
            "The id of the last event of this job that was seen.",
            "header",
        ),
    ),
    answers={
        200: Answer(
            "Ids are the job's revisions; `end`: the token has expired.",
            EVENT,
            (),
            "text/event-stream",
        ),
        204: Answer("Nothing more will come: do not connect again."),
    },
    refusals=("service_busy",),
)


@get("/api/v1/jobs/{job_id:str}/events", opt={"requires": "read", "operation": _EVENTS}, media_type=MediaType.JSON)
async def get_events(request: ApiRequest, gateway: Gateway, job_id: str) -> Response[bytes]:
    """Everything since `Last-Event-ID`, then what comes, until the job has ended.

    204 when there is nothing more to come, which tells an EventSource not to connect again.
    """
    seen = _last_event_id(request.headers.get("last-event-id"))
    record = await job_with_event(gateway, request.user, job_id, seen)
    if over(record) and record.revision <= seen:
        return Response(b"", status_code=204)
    return follow(gateway, request.user, JobEvents(gateway, request.user, job_id, seen, Facts()).events)


def follow(gateway: Gateway, caller: Caller, events: Callable[[], AsyncGenerator[bytes, None]]) -> Response[bytes]:
    """A stream for the caller, for as long as it is let in; one of those that it may have."""
    return sse_answer(events, gateway.stream_slots.taken(caller.client_id), caller.expires_at)


class Telling(Protocol):
    """How a face writes a job's events: those of the log, and extra ones of its own."""

    def listening(self, watch: Watch) -> AbstractAsyncContextManager[None]:
        """While it is open, `watch` is woken by extra events."""

    def revision(self, event: Event, revision: int, told: object) -> bytes:
        """One event of the log; `revision` is that of the job after it, `told` what the client is told of it."""

    def extra(self) -> AsyncGenerator[bytes, None] | None:
        """The extra events that there are now; None for a face without any."""


class Facts:
    """Each event of the log under its own name, with the job after it."""

    def listening(self, watch: Watch) -> AbstractAsyncContextManager[None]:  # noqa: ARG002 - as all that tell
        """Nothing to listen to."""
        return contextlib.nullcontext()

    def revision(self, event: Event, revision: int, told: object) -> bytes:
        """The fact."""
        return sse_event(str(event.fact.__struct_config__.tag), told, revision)

    def extra(self) -> None:
        """None."""


class JobEvents:
    """One client's stream. What the client does not take yet is not read yet.

    Args:
        gateway: knows the job.
        caller: to whom it is shown.
        job_id: which.
        seen: the revision up to which the client knows it.
        telling: writes the events.
    """

    def __init__(self, gateway: Gateway, caller: Caller, job_id: str, seen: int, telling: Telling) -> None:
        self._gateway, self._caller, self._job_id = gateway, caller, job_id
        self._seen, self._telling = seen, telling
        self._record: JobRecord | None = None
        self._sequence = 0
        """Of the message that carries `record`."""
        self._ended = False

    async def events(self) -> AsyncGenerator[bytes, None]:
        """What `get_events` promises."""
        with self._gateway.live.watch(self._job_id) as watch:
            async with self._telling.listening(watch):
                async for event in self._revisions(watch):
                    yield event
                if self._record and (report := await self._gateway.live.progress_of(self._record)):
                    watch.tell_progress(report)
                async for event in self._what_comes(watch):
                    yield event

    async def _what_comes(self, watch: Watch) -> AsyncGenerator[bytes, None]:
        """The events from now on."""
        spoke_at = looked_at = time.monotonic()
        while not self._ended and not self._gateway.live.ending:
            now = time.monotonic()
            if now >= looked_at + LOOK_S:
                looked_at = now
                watch.missed |= not self._gateway.read_copy.holds  # nobody tells of events then
            async for event in self._revisions(watch):
                yield event
                spoke_at = now
            if self._ended:
                return
            if extra := self._telling.extra():
                async for event in extra:
                    yield event
                    spoke_at = now
            if progress := self._progress(watch):
                yield progress
                spoke_at = now
            if now >= spoke_at + HEARTBEAT_S:
                yield HEARTBEAT
                spoke_at = now
            await watch.wait()

    async def _revisions(self, watch: Watch) -> AsyncGenerator[bytes, None]:
        """The events of the log that the client has not seen; the extra ones before the last of them."""
        async for told in self._stored(watch):
            job = told.event.job
            revision = job.revision if job else (self._record.revision if self._record else 0) + 1
            self._record, self._sequence = job, told.sequence
            self._ended = job is None or over(job)
            if revision <= self._seen:
                continue
            self._seen = revision
            if self._ended and (extra := self._telling.extra()):
                async for event in extra:
                    yield event
            yield self._telling.revision(told.event, revision, await self._shown(told))

    async def _stored(self, watch: Watch) -> AsyncGenerator[Told, None]:
        """The events after `_sequence`: from the log where some may have been missed, then those that the watch has."""
        if watch.missed:
            watch.missed = False  # what is stored from here on is read, or told, or both
            try:
                last = (await self._gateway.read_copy.read(self._job_id, None)).revision.sequence
                async for sequence, event in self._gateway.job_log.events_after(self._job_id, self._sequence):
                    yield Told(sequence, event, is_last=sequence >= last)
            except EventBusUnavailable:
                watch.missed = True  # it is looked again, for as long as the client stays
        while told := watch.take_event():
            if told.sequence > self._sequence:
                yield told

    async def _shown(self, told: Told) -> object:
        """The job after the event, the last one as whoever asks for the job is shown it; of one that is gone, why.

        The first client that is shown it has it written for all others of its face.
        """
        face = self._caller.jobs_path
        if face not in told.shown:
            async with told.writing:
                if face not in told.shown:
                    told.shown[face] = msgspec.Raw(msgspec.json.encode(await self._resource(told)))
        return told.shown[face]

    async def _resource(self, told: Told) -> object:
        event = told.event
        if event.job is None:
            reason = event.fact.reason if isinstance(event.fact, JobDeleted) else None
            return {"job_id": self._job_id, "reason": reason}
        if told.is_last:
            return await current(self._gateway, self._caller, event.job)
        return self._caller.shown(event.job, job_resource(event.job, None))

    def _progress(self, watch: Watch) -> bytes | None:
        report, job = watch.take_progress(), self._record
        if report is None or job is None or not is_current(report, job):
            return None
        return sse_event(
            "progress",
            {
                "job_id": job.job_id,
                "stage": report.stage,
                "fraction": report.fraction,
                "activity": report.activity,
                "progress": progress(job, report.fraction),
            },
        )


async def job_with_event(gateway: Gateway, caller: Caller, job_id: str, revision: int) -> JobRecord:
    """A job that the caller sees, to go on after its event `revision`.

    Raises:
        Refusal: `validation_error`, the job has had no such event; else as `own_job` does.
    """
    record = await shown_job(gateway, caller, job_id)
    if record.revision < revision:  # the copy may trail a client that has followed elsewhere
        record = await own_job(gateway, caller, job_id)
    if record.revision < revision:
        wrong = f"found {revision}, the job's last event is {record.revision}; allowed: the id of an event of this job"
        raise bad_fields([FieldError("Last-Event-ID", wrong)])
    return record


def over(job: JobRecord) -> bool:
    """Whether nothing follows that belongs to the conversion."""
    return not job.active and job.announced


def _last_event_id(header: str | None) -> int:
    if header is None or header == "":
        return 0
    if not re.fullmatch(r"[0-9]{1,9}", header):
        raise bad_fields([FieldError("Last-Event-ID", f"found {shown(header)}; allowed: the id of an event")])
    return int(header)
