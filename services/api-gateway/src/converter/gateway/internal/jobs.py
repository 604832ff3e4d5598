"""The list of all jobs, newest first, in pages."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Self

from litestar import Response, get
from litestar.enums import MediaType
from msgspec import Struct

from converter.contracts.job import JobRecord, JobStatus
from converter.gateway.endpoints.jobs import JOB_ID, READ_AT_ONCE, ApiRequest, current
from converter.gateway.endpoints.paging import LIMIT, LIMIT_DEFAULT, limit_in
from converter.gateway.gateway import Gateway
from converter.gateway.http.answers import json_answer
from converter.gateway.http.errors import FieldError, bad_fields
from converter.gateway.http.query import read_query
from converter.gateway.http.written import shown
from converter.gateway.index import JobFilter, JobIndex
from converter.gateway.intake.options import PLATFORMS
from converter.gateway.internal.operators import OperatorJob, StageOrEnd
from converter.gateway.openapi.documentation import Answer, Operation, Parameter
from converter.gateway.representation import JobResource

STATUSES = (*StageOrEnd, *JobStatus)


class OperatorJobs(Struct, frozen=True, kw_only=True):
    """Some of the jobs, newest first; `next_cursor` asks for those after them, where there are any."""

    jobs: tuple[OperatorJob, ...]
    next_cursor: str | None


class ListQuery(Struct, frozen=True, kw_only=True):
    """Which jobs to list. `cursor` is the last job of the page before."""

    wanted: JobFilter
    limit: int = LIMIT_DEFAULT
    cursor: str | None = None

    @classmethod
    def parse(cls, query_string: bytes) -> Self:
        """The query in a URL; an empty value is as none.

        Raises:
            Refusal: `validation_error` that names every bad parameter.
        """
        given, problems = read_query(query_string, (*JobFilter.__struct_fields__, "limit", "cursor"))
        given = {name: value.lower() if name == "q" else value for name, value in given.items() if value}
        limit = limit_in(given, problems)
        cursor = given.get("cursor")
        for name, allowed in (("status", STATUSES), ("platform", PLATFORMS)):
            if name in given and given[name] not in allowed:
                problems.append(FieldError(name, f"found {shown(given[name])}; allowed: {', '.join(allowed)}"))
        if cursor is not None and not JOB_ID.fullmatch(cursor):
            problems.append(FieldError("cursor", "not a cursor; allowed: next_cursor of the page before"))
        if problems:
            raise bad_fields(problems)
        wanted = {name: value for name, value in given.items() if name in JobFilter.__struct_fields__}
        return cls(wanted=JobFilter(**wanted), limit=limit, cursor=cursor)


_LIST = Operation(
    answers={200: Answer("The page.", OperatorJobs)},
    parameters=(
        Parameter("status", {"type": "string", "enum": list(STATUSES)}, "Only jobs with this status."),
        Parameter("client_id", {"type": "string"}, "Only this client's."),
        Parameter("user_id", {"type": "string"}, "Only this user's."),
        Parameter("platform", {"type": "string", "enum": list(PLATFORMS)}, "Only for this chip."),
        Parameter("q", {"type": "string"}, "Only those with this in their file's name or their id."),
        LIMIT,
        Parameter("cursor", {"type": "string"}, "The `next_cursor` of the page before."),
    ),
    refusals=("event_bus_unavailable",),
)


@get("/jobs", opt={"requires": None, "operation": _LIST}, media_type=MediaType.JSON)
async def list_all_jobs(request: ApiRequest, gateway: Gateway, index: JobIndex) -> Response[bytes]:
    """A page of every client's jobs, newest first. A job may be missing for a moment after it was posted."""
    query = ListQuery.parse(request.scope["query_string"])
    await index.refresh()
    found: list[JobRecord] = []
    before = query.cursor
    while len(found) <= query.limit:
        ids = list(islice(index.find(query.wanted, before), min(query.limit + 1 - len(found), READ_AT_ONCE)))
        if not ids:
            break
        before = ids[-1]
        copies = await asyncio.gather(*(gateway.read_copy.read(job_id, None) for job_id in ids))
        for job_id, state in zip(ids, (copied.revision.state for copied in copies), strict=True):
            if isinstance(state, JobRecord):
                found.append(state)
            else:
                index.forget(job_id)
    page = found[: query.limit]
    shown_jobs: list[JobResource] = [await current(gateway, request.user, record) for record in page]
    more = len(found) > query.limit
    return json_answer({"jobs": shown_jobs, "next_cursor": page[-1].job_id if more else None})
