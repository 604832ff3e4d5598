"""Jobs: look at one, list a user's."""

from __future__ import annotations

import asyncio
import re
from typing import NamedTuple

from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.enums import MediaType
from litestar.types import ASGIApp, Receive, Scope, Send

from converter.common.lifecycle import State as JobState
from converter.contracts.job import JobRecord, JobStatus
from converter.contracts.live import ProgressReported
from converter.gateway.caller import Caller
from converter.gateway.endpoints.paging import LIMIT, USER_ID_PATTERN, JobQuery
from converter.gateway.gateway import Gateway
from converter.gateway.http.answers import Tagged
from converter.gateway.http.errors import Refusal
from converter.gateway.http.headers import challenge, combined
from converter.gateway.http.middleware import Authentication
from converter.gateway.openapi.documentation import IF_NONE_MATCH, NOT_MODIFIED, Answer, Operation, Parameter
from converter.gateway.queues import Place
from converter.gateway.read_copy import Copied
from converter.gateway.representation import JobPage, JobResource, job_resource

ApiRequest = Request[Caller, None, State]

JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
READ_AT_ONCE = 25


_LIST = Operation(
    answers={200: Answer("The page.", JobPage), 304: NOT_MODIFIED},
    parameters=(
        Parameter("user_id", {"type": "string", "pattern": USER_ID_PATTERN}, "Whose jobs.", required=True),
        Parameter("status", {"type": "string", "enum": list(JobStatus)}, "Only jobs with this status."),
        LIMIT,
        Parameter("cursor", {"type": "string"}, "The `next_cursor` of the page before; with the same user and status."),
        IF_NONE_MATCH,
    ),
)


@get("/api/v1/jobs", opt={"requires": "read", "operation": _LIST}, media_type=MediaType.JSON)
async def list_jobs(request: ApiRequest, gateway: Gateway) -> Response[bytes]:
    """A page of the user's jobs, newest first, or that it has not changed."""
    client_id = request.user.client_id
    query = JobQuery.parse(request.scope["query_string"], gateway.cursors, client_id)
    require_user(request.user, query.user_id)
    ids = [
        job_id
        for job_id in await gateway.user_jobs.newest_first(client_id, query.user_id)
        if query.after is None or job_id < query.after
    ]
    found: list[JobRecord] = []
    for start in range(0, len(ids), READ_AT_ONCE):
        some = ids[start : start + READ_AT_ONCE]
        copies = await asyncio.gather(*(gateway.read_copy.read(id_, request.user) for id_ in some))
        states = [copied.revision.state for copied in copies]
        found += [state for state in states if isinstance(state, JobRecord) and query.status in (None, state.status)]
        if len(found) > query.limit:
            break
    page = found[: query.limit]
    more = len(found) > query.limit
    shown = JobPage(
        items=tuple([await current(gateway, request.user, record) for record in page]),
        next_cursor=gateway.cursors.after(page[-1].job_id, client_id, query.user_id, query.status) if more else None,
    )
    return Tagged.of(shown).answer(combined(request.scope["headers"], b"if-none-match"))


_GET = Operation(
    answers={200: Answer("The job.", JobResource), 304: NOT_MODIFIED},
    parameters=(IF_NONE_MATCH,),
)


@get("/api/v1/jobs/{job_id:str}", opt={"requires": "read", "operation": _GET}, media_type=MediaType.JSON)
async def get_job(request: ApiRequest, gateway: Gateway, job_id: str) -> Response[bytes]:
    """One job, or that it has not changed."""
    return (await _look(gateway, request.user, job_id)).answer(combined(request.scope["headers"], b"if-none-match"))


class Looks:
    """Serves `get_job` of the public face in plain ASGI, since it is asked most; all else is the framework's.

    Args:
        app: the framework.
        gateway: knows the jobs.
        authentication: lets a request pass.
    """

    _ROOT, _TEMPLATE = "/api/v1/jobs", "/api/v1/jobs/{job_id}"

    def __init__(self, app: ASGIApp, gateway: Gateway, authentication: Authentication) -> None:
        self._app, self._gateway, self._authentication = app, gateway, authentication

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI).

        Raises:
            Exception: what `http.refusals` knows.
        """
        root, _, job_id = scope["path"].rpartition("/")
        if root != self._ROOT or not job_id or scope["method"] != "GET":  # type: ignore[typeddict-item]  # HTTP only
            await self._app(scope, receive, send)
            return
        scope["path_template"] = self._TEMPLATE
        caller = await self._authentication.admit(scope, get_job.opt["requires"])
        found = await _look(self._gateway, caller, job_id)
        await found.send(combined(scope["headers"], b"if-none-match"), send)


async def _look(gateway: Gateway, caller: Caller, job_id: str) -> Tagged:
    """What the caller is shown of a job; encoded once for as long as nothing of it changes."""
    copied = await _copied(gateway, caller, job_id)
    record = own(copied.revision.state, caller)
    standing = await _standing(gateway, record)
    of = (record.revision, standing, caller.jobs_path)
    if copied.shown is None or copied.shown[0] != of:
        copied.shown = of, Tagged.of(_resource(caller, record, standing))
    return copied.shown[1]


async def shown_job(gateway: Gateway, caller: Caller, job_id: str) -> JobRecord:
    """A job that the caller sees, for an answer that changes nothing.

    Raises:
        Refusal: as `own_job` does.
    """
    return own((await _copied(gateway, caller, job_id)).revision.state, caller)


async def _copied(gateway: Gateway, caller: Caller, job_id: str) -> Copied:
    if not JOB_ID.fullmatch(job_id):
        raise Refusal("job_not_found")
    return await gateway.read_copy.read(job_id, caller)


async def own_job(gateway: Gateway, caller: Caller, job_id: str) -> JobRecord:
    """A job that the caller sees, from the leader, for what is going to be decided.

    Raises:
        Refusal: `job_not_found`, the same for a job that does not exist and for another client's.
    """
    if not JOB_ID.fullmatch(job_id):
        raise Refusal("job_not_found")
    return own(await gateway.job_log.read(job_id), caller)


def own(state: JobState, caller: Caller) -> JobRecord:
    """`state`, if it is a job that the caller sees.

    Raises:
        Refusal: `job_not_found`.
    """
    if not isinstance(state, JobRecord) or not caller.sees(state):
        raise Refusal("job_not_found")
    return state


def require_user(caller: Caller, user_id: str | None) -> None:
    """Check that the request may be for the user that it names, if it names one.

    Raises:
        Refusal: `user_mismatch`.
    """
    if user_id is not None and not caller.acts_for(user_id):
        raise Refusal("user_mismatch", headers={"WWW-Authenticate": challenge("insufficient_scope")})


async def current(gateway: Gateway, caller: Caller, record: JobRecord) -> JobResource:
    """What the caller is shown of `record`, with how far it is."""
    return _resource(caller, record, await _standing(gateway, record))


class _Standing(NamedTuple):
    """What the record itself does not say: how far its stage is, and how it waits."""

    report: ProgressReported | None
    place: Place | None
    unattended: bool


async def _standing(gateway: Gateway, record: JobRecord) -> _Standing:
    return _Standing(
        await gateway.live.progress_of(record),
        await gateway.queues.place(record),
        await gateway.queues.unattended(record),
    )


def _resource(caller: Caller, record: JobRecord, standing: _Standing) -> JobResource:
    report, place, unattended = standing
    resource = job_resource(
        record,
        report.fraction if report else None,
        activity=report.activity if report else None,
        queue_position=place.position if place else None,
        estimated_wait_s=place.estimated_wait_s if place else None,
        unattended=unattended,
    )
    return caller.shown(record, resource)
