"""A job as the page follows it: its state after every event, its progress, and what the toolchain writes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager

from litestar import Response, get
from litestar.enums import MediaType

from converter.common.bus import EventBusUnavailable
from converter.contracts import subjects
from converter.contracts.facts import Event
from converter.gateway.endpoints.events import JobEvents, follow, job_with_event, over
from converter.gateway.endpoints.jobs import ApiRequest
from converter.gateway.endpoints.logs import lines_on, log_event, woken_by_lines
from converter.gateway.gateway import Gateway
from converter.gateway.http.errors import FieldError, bad_fields
from converter.gateway.http.sse import sse_event
from converter.gateway.http.written import shown
from converter.gateway.live import Watch
from converter.gateway.openapi.documentation import EVENT, Answer, Operation, Parameter

LAST_EVENT_ID = r"([0-9]{1,9})(?:\.([0-9]{1,19}))?"

_EVENTS = Operation(
    parameters=(
        Parameter(
            "Last-Event-ID",
            {"type": "string", "pattern": f"^({LAST_EVENT_ID})?$"},
            "The id of the last event of this job that was seen.",
            "header",
        ),
    ),
    answers={
        200: Answer("`status`, `progress`, `log`, `deleted`.", EVENT, (), "text/event-stream"),
        204: Answer("Nothing more will come: do not connect again."),
    },
)


@get("/jobs/{job_id:str}/events", opt={"requires": None, "operation": _EVENTS}, media_type=MediaType.JSON)
async def follow_job(request: ApiRequest, gateway: Gateway, job_id: str) -> Response[bytes]:
    """Everything since `Last-Event-ID`, then what comes, until the job has ended.

    `status` is the job after one of its events, `progress` how far it is, `log` a line (of those that NATS still has:
    a day, the last 1,000 of each stage). Ids are `revision.line`; a revision alone is taken, too.
    """
    revision, line = _last_event_id(request.headers.get("last-event-id"))
    record = await job_with_event(gateway, request.user, job_id, revision)
    if over(record) and record.revision <= revision:
        return Response(b"", status_code=204)
    telling = _StatusAndLog(gateway, job_id, revision, line)
    return follow(gateway, request.user, JobEvents(gateway, request.user, job_id, revision, telling).events)


class _StatusAndLog:
    """The job after each event of the log, and the lines; every id tells how much of both came before it."""

    def __init__(self, gateway: Gateway, job_id: str, revision: int, line: int) -> None:
        self._gateway, self._job_id = gateway, job_id
        self._revision, self._line = revision, line

    def listening(self, watch: Watch) -> AbstractAsyncContextManager[None]:
        """Lines wake who waits."""
        return woken_by_lines(self._gateway, self._job_id, watch)

    def revision(self, event: Event, revision: int, told: object) -> bytes:
        """The job, or that it is gone."""
        self._revision = revision
        return sse_event("status" if event.job else "deleted", told, self._id())

    async def extra(self) -> AsyncGenerator[bytes, None]:
        """The lines that have been written since."""
        with contextlib.suppress(EventBusUnavailable):  # it is looked again, for as long as the client stays
            async for sequence, written in lines_on(self._gateway, subjects.log_of_stages(self._job_id), self._line):
                self._line = sequence
                yield log_event(written.stage, written.attempt, written.at, written.line, self._id())

    def _id(self) -> str:
        return f"{self._revision}.{self._line}"


def _last_event_id(header: str | None) -> tuple[int, int]:
    """The revision and the line that the client has seen; 0 for none."""
    if not header:
        return 0, 0
    found = re.fullmatch(LAST_EVENT_ID, header)
    if found is None:
        raise bad_fields([FieldError("Last-Event-ID", f"found {shown(header)}; allowed: the id of an event")])
    return int(found[1]), int(found[2] or 0)
