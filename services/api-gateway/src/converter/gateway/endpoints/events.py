"""The events of a job as they happen: one for each revision of its record, and progress in between."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncGenerator

from litestar import Response, get
from litestar.enums import MediaType

from converter.common.bus import EventBusUnavailable
from converter.contracts.facts import Event, JobDeleted
from converter.contracts.job import JobRecord
from converter.gateway.endpoints.jobs import ApiRequest, own_job
from converter.gateway.gateway import Gateway
from converter.gateway.http.errors import FieldError, bad_fields
from converter.gateway.http.sse import HEARTBEAT, HEARTBEAT_S, sse_answer, sse_event
from converter.gateway.http.written import shown
from converter.gateway.live import Watch, is_current
from converter.gateway.openapi.documentation import EVENT, Answer, Operation, Parameter
from converter.gateway.representation import job_resource, progress

LOOK_S = 1.0
"""How often the log is looked at without a hint, which may be lost."""
LOOK_SOON_S = 0.02
HINT_HOLDS_S = 0.5
"""A hint may come before its event is stored; for this long the log is looked at often."""


_EVENTS = Operation(
    parameters=(
        Parameter(
            "Last-Event-ID",
            {"type": "string", "pattern": "^[0-9]{0,9}$"},
            "The id of the last event that was seen.",
            "header",
        ),
    ),
    answers={
        200: Answer("Server-sent events; ids are the job's revisions.", EVENT, (), "text/event-stream"),
        204: Answer("Nothing more will come: do not connect again."),
    },
)


@get("/api/v1/jobs/{job_id:str}/events", opt={"requires": "read", "operation": _EVENTS}, media_type=MediaType.JSON)
async def get_events(request: ApiRequest, gateway: Gateway, job_id: str) -> Response[bytes]:
    """Everything since `Last-Event-ID`, then what comes, until the job has ended.

    204 when there is nothing more to come, which tells an EventSource not to connect again.
    """
    seen = _last_event_id(request.headers.get("last-event-id"))
    record = await own_job(gateway, request.user.client_id, job_id)
    if _over(record) and record.revision <= seen:
        return Response(b"", status_code=204)
    return sse_answer(lambda: _Stream(gateway, job_id, seen).events())


class _Stream:
    """One client's stream. What the client does not take yet is not read yet."""

    def __init__(self, gateway: Gateway, job_id: str, seen: int) -> None:
        self._gateway, self._job_id, self._seen = gateway, job_id, seen
        self._record: JobRecord | None = None
        self._ended = False

    async def events(self) -> AsyncGenerator[bytes, None]:
        """What `get_events` promises."""
        hinted_until = 0.0
        with self._gateway.live.watch(self._job_id) as watch:
            async for event in self._news():
                yield event
            if self._record and (report := await self._gateway.live.progress_of(self._record)):
                watch.tell_progress(report)
            spoke_at = looked_at = time.monotonic()
            while not self._ended and not self._gateway.live.ending:
                now = time.monotonic()
                if watch.take_change():
                    hinted_until = now + HINT_HOLDS_S
                if now < hinted_until or now >= looked_at + LOOK_S:
                    looked_at = now
                    async for event in self._news():
                        yield event
                        spoke_at, hinted_until = now, 0.0
                    if self._ended:
                        return
                if told := self._progress(watch):
                    yield told
                    spoke_at = now
                if now >= spoke_at + HEARTBEAT_S:
                    yield HEARTBEAT
                    spoke_at = now
                await watch.wait(LOOK_SOON_S if now < hinted_until else LOOK_S)

    async def _news(self) -> AsyncGenerator[bytes, None]:
        """The events that the client has not seen."""
        with contextlib.suppress(EventBusUnavailable):  # it is looked again, for as long as the client stays
            if self._record and await self._gateway.job_log.read(self._job_id) == self._record:
                return
            revision = 0
            for event in await self._gateway.job_log.history(self._job_id):
                revision = event.job.revision if event.job else revision + 1
                self._record, self._ended = event.job, event.job is None or _over(event.job)
                if revision > self._seen:
                    self._seen = revision
                    yield self._written(event, revision)

    def _written(self, event: Event, revision: int) -> bytes:
        kind = str(event.fact.__struct_config__.tag)
        if event.job is None:
            reason = event.fact.reason if isinstance(event.fact, JobDeleted) else None
            return sse_event(kind, {"job_id": self._job_id, "reason": reason}, revision)
        return sse_event(kind, job_resource(event.job, None), revision)

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


def _over(job: JobRecord) -> bool:
    """Whether nothing follows that belongs to the conversion."""
    return not job.active and job.announced


def _last_event_id(header: str | None) -> int:
    if header is None or header == "":
        return 0
    if not re.fullmatch(r"[0-9]{1,9}", header):
        raise bad_fields([FieldError("Last-Event-ID", f"found {shown(header)}; allowed: the id of an event")])
    return int(header)
