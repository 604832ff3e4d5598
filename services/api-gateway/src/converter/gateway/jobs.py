"""Jobs: create one, look at one, list a user's."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.enums import MediaType
from multipart import parse_options_header

from converter.common.failpoint import failpoint
from converter.common.identifiers import uuid7
from converter.common.lifecycle import IllegalTransition
from converter.common.lifecycle import State as JobState
from converter.common.users import UserHasActiveJob
from converter.contracts.facts import JobCreated
from converter.contracts.job import JobRecord, JobRequest, JobStatus, timestamp
from converter.gateway import deadlines
from converter.gateway.answers import json_answer, tagged
from converter.gateway.auth import Principal
from converter.gateway.errors import Refusal
from converter.gateway.gateway import Gateway
from converter.gateway.intake import Inputs, received
from converter.gateway.paging import JobQuery
from converter.gateway.representation import JobResource, job_resource

ApiRequest = Request[Principal, None, State]

_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BOUNDARY_MAX_CHARS = 200
_READ_AT_ONCE = 25


@post("/api/v1/jobs", opt={"requires": "write"}, media_type=MediaType.JSON)
async def create_job(request: ApiRequest, gateway: Gateway) -> Response[bytes]:
    """Take in a model and its images, then create the job. The user's lock is claimed last: an upload holds nothing."""
    boundary = multipart_boundary(request, gateway.limits.body_max_bytes)
    client_id, job_id = request.user.client_id, uuid7()

    async def look_at_lock(user_id: str) -> None:
        if held := await gateway.active_jobs.holder(client_id, user_id):
            raise held

    with gateway.upload_slots.taken():
        async with received(
            request.receive,
            boundary,
            store=gateway.store,
            job_id=job_id,
            limits=gateway.limits,
            pace=gateway.pace,
            look_at_lock=look_at_lock,
        ) as inputs:
            record = await _create(gateway, job_id, inputs, client_id, request.state["request_id"])
    return json_answer(
        await current(gateway, record), status_code=201, headers={"Location": f"/api/v1/jobs/{record.job_id}"}
    )


@get("/api/v1/jobs", opt={"requires": "read"}, media_type=MediaType.JSON)
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
        {
            "items": [await current(gateway, record) for record in page],
            "next_cursor": gateway.cursors.after(page[-1].job_id, client_id, query) if more else None,
        }
    )


@get("/api/v1/jobs/{job_id:str}", opt={"requires": "read"}, media_type=MediaType.JSON)
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
    running = record.status is JobStatus.RUNNING
    return job_resource(record, await gateway.progress_of(record.job_id) if running else None)


def multipart_boundary(request: ApiRequest, body_max_bytes: int) -> str:
    """The boundary of the form that the request announces.

    Raises:
        Refusal: it announces something else, or more than can be taken.
    """
    content_type, parameters = parse_options_header(request.headers.get("content-type", ""))
    if content_type != "multipart/form-data":
        raise Refusal("unsupported_media_type", details={"hint": "Send multipart/form-data."})
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refusal("unsupported_media_type", details={"hint": "Send the body without a Content-Encoding."})
    if int(request.headers.get("content-length", "0")) > body_max_bytes:
        raise Refusal("file_too_large", "The body is over its limit.", details={"limit_bytes": body_max_bytes})
    boundary: str = parameters.get("boundary", "")
    if not 1 <= len(boundary) <= _BOUNDARY_MAX_CHARS:
        raise Refusal("invalid_multipart", "Content-Type names no usable boundary.")
    return boundary


async def _create(gateway: Gateway, job_id: str, inputs: Inputs, client_id: str, request_id: str) -> JobRecord:
    """Index, claim, create: a crash in between leaves an entry or a lock without a job, and both heal.

    Raises:
        UserHasActiveJob: another job of the user is active.
        EventBusUnavailable: the job may or may not come to be; its inputs are kept.
    """
    user_id, now = inputs.order.user_id, datetime.now(UTC)
    fact = JobCreated(
        at=timestamp(now),
        job_id=job_id,
        request=_job_request(inputs, client_id, request_id),
        expires_at=timestamp(now + gateway.artifact_ttl),
        warnings=inputs.order.warnings,
    )
    await gateway.user_jobs.add(client_id, user_id, job_id)
    await gateway.active_jobs.claim(client_id, user_id, job_id)
    await deadlines.schedule(gateway.bus, job_id, now + gateway.job_deadline)
    inputs.keep()
    failpoint("before", "create")
    try:
        return own(await gateway.job_log.append(job_id, lambda _: fact), client_id)
    except IllegalTransition:
        # This gateway slept past the claim's grace and the lock was taken over.
        inputs.release()
        raise await gateway.active_jobs.holder(client_id, user_id) or UserHasActiveJob(job_id, None) from None


def _job_request(inputs: Inputs, client_id: str, request_id: str) -> JobRequest:
    order = inputs.order
    return JobRequest(
        client_id=client_id,
        user_id=order.user_id,
        platform=order.platform,
        model_id=order.model_id,
        version=order.version,
        model=inputs.model,
        ref_images=inputs.ref_images,
        options=order.options,
        request_id=request_id,
    )
