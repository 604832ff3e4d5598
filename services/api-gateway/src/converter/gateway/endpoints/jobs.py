"""Jobs: look at one, list a user's."""

from __future__ import annotations

import asyncio
import re

from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.enums import MediaType

from converter.common.lifecycle import State as JobState
from converter.contracts.job import JobRecord, JobStatus
from converter.gateway.clients.tokens import Principal
from converter.gateway.endpoints.paging import LIMIT_DEFAULT, LIMIT_MAX, USER_ID_PATTERN, JobQuery
from converter.gateway.gateway import Gateway
from converter.gateway.http.answers import json_answer, tagged
from converter.gateway.http.errors import Refusal
from converter.gateway.openapi.documentation import IF_NONE_MATCH, NOT_MODIFIED, Answer, Operation, Parameter
from converter.gateway.representation import JobPage, JobResource, job_resource

ApiRequest = Request[Principal, None, State]

_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_READ_AT_ONCE = 25


_LIST = Operation(
    answers={200: Answer("The page.", JobPage)},
    parameters=(
        Parameter("user_id", {"type": "string", "pattern": USER_ID_PATTERN}, "Whose jobs.", required=True),
        Parameter("status", {"type": "string", "enum": list(JobStatus)}, "Only jobs with this status."),
        Parameter(
            "limit", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}, "How many."
        ),
        Parameter("cursor", {"type": "string"}, "The `next_cursor` of the page before; with the same user and status."),
    ),
)


@get("/api/v1/jobs", opt={"requires": "read", "operation": _LIST}, media_type=MediaType.JSON)
async def list_jobs(request: ApiRequest, gateway: Gateway) -> Response[bytes]:
    """A page of the user's jobs, newest first."""
    query = JobQuery.parse(request.scope["query_string"])
    client_id = request.user.client_id
    after = gateway.cursors.read(client_id, query)
    ids = [
        job_id
        for job_id in await gateway.user_jobs.newest_first(client_id, query.user_id)
        if after is None or job_id < after
    ]
    found: list[JobRecord] = []
    for start in range(0, len(ids), _READ_AT_ONCE):
        states = await asyncio.gather(*(gateway.job_log.read(id_) for id_ in ids[start : start + _READ_AT_ONCE]))
        found += [state for state in states if isinstance(state, JobRecord) and query.status in (None, state.status)]
        if len(found) > query.limit:
            break
    page = found[: query.limit]
    more = len(found) > query.limit
    return json_answer(
        JobPage(
            items=tuple([await current(gateway, record) for record in page]),
            next_cursor=gateway.cursors.after(page[-1].job_id, client_id, query) if more else None,
        )
    )


_GET = Operation(
    answers={200: Answer("The job.", JobResource, headers=("ETag",)), 304: NOT_MODIFIED}, parameters=(IF_NONE_MATCH,)
)


@get("/api/v1/jobs/{job_id:str}", opt={"requires": "read", "operation": _GET}, media_type=MediaType.JSON)
async def get_job(request: ApiRequest, gateway: Gateway, job_id: str) -> Response[bytes]:
    """One job, or that it has not changed."""
    record = await own_job(gateway, request.user.client_id, job_id)
    return tagged(await current(gateway, record), request.headers.get("if-none-match"))


async def own_job(gateway: Gateway, client_id: str, job_id: str) -> JobRecord:
    """The client's job.

    Raises:
        Refusal: `job_not_found`, the same for a job that does not exist and for another client's.
    """
    if not _JOB_ID.fullmatch(job_id):
        raise Refusal("job_not_found")
    return own(await gateway.job_log.read(job_id), client_id)


def own(state: JobState, client_id: str) -> JobRecord:
    """`state`, if it is a job of the client.

    Raises:
        Refusal: `job_not_found`.
    """
    if not isinstance(state, JobRecord) or state.request.client_id != client_id:
        raise Refusal("job_not_found")
    return state


async def current(gateway: Gateway, record: JobRecord) -> JobResource:
    """The public form of `record` with how far it is."""
    report, place = await gateway.live.progress_of(record), await gateway.queues.place(record)
    return job_resource(
        record,
        report.fraction if report else None,
        activity=report.activity if report else None,
        queue_position=place.position if place else None,
        estimated_wait_s=place.estimated_wait_s if place else None,
    )
