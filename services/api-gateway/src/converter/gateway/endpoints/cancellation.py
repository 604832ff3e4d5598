"""Ends a job that its client no longer wants: cancels what is active, deletes what has ended."""

from __future__ import annotations

import contextlib

import structlog
from litestar import Response, delete, post
from litestar.enums import MediaType

from converter.common.bus import EventBusUnavailable
from converter.common.failpoint import failpoint
from converter.common.lifecycle import State, pending
from converter.common.promotion import PromotionInProgress
from converter.common.storage import StorageError
from converter.contracts import subjects
from converter.contracts.facts import JobCancelled, JobDeleted
from converter.contracts.job import JobRecord, timestamp
from converter.gateway.caller import Caller
from converter.gateway.endpoints.jobs import ApiRequest, current, own, own_job
from converter.gateway.endpoints.promotions import close_overdue
from converter.gateway.gateway import Gateway
from converter.gateway.http.answers import etag_of, json_answer, matches
from converter.gateway.http.errors import Refusal
from converter.gateway.http.headers import combined
from converter.gateway.openapi.documentation import IF_MATCH, Answer, Operation
from converter.gateway.representation import JobResource

log = structlog.get_logger()


class Precondition:
    """`If-Match`, checked against the job as it was read, and again against the state that is then changed.

    The tag covers the whole representation, progress included: that of a running job changes all the time.
    """

    def __init__(self, revision: int | None) -> None:
        self._revision = revision

    @classmethod
    async def of(cls, request: ApiRequest, gateway: Gateway, record: JobRecord) -> Precondition:
        """What the request asks for.

        Raises:
            Refusal: `precondition_failed`; the client knows another state of the job.
        """
        header = combined(request.scope["headers"], b"if-match")
        if header is None or header.strip() == "*":
            return cls(None)
        tag = etag_of(await current(gateway, request.user, record))
        if not matches(header, tag):
            raise Refusal("precondition_failed", headers={"ETag": tag})
        return cls(record.revision)

    def check(self, record: JobRecord) -> None:
        """Check the state that is about to change.

        Raises:
            Refusal: `precondition_failed`; somebody changed the job since.
        """
        if self._revision not in (None, record.revision):
            raise Refusal("precondition_failed")


_CANCEL = Operation(
    answers={202: Answer("The job, cancelled.", JobResource)},
    parameters=(IF_MATCH,),
    refusals=("job_not_active", "precondition_failed", "event_bus_full"),
    refused_with={"precondition_failed": ("ETag",)},
)
_DELETE = Operation(
    answers={
        200: Answer("The job ended while it was to be cancelled; nothing is deleted.", JobResource),
        202: Answer("The job was active and is cancelled; record and logs stay.", JobResource),
        204: Answer("The job had ended; its record and its artifacts are gone."),
    },
    parameters=(IF_MATCH,),
    refusals=("promotion_in_progress", "precondition_failed", "event_bus_full"),
    refused_with={"precondition_failed": ("ETag",)},
)


@post(
    "/api/v1/jobs/{job_id:str}/cancel",
    opt={"requires": "write", "operation": _CANCEL},
    media_type=MediaType.JSON,
    status_code=202,
)
async def cancel_job(request: ApiRequest, gateway: Gateway, job_id: str) -> Response[bytes]:
    """Cancel an active job; its record, its log and what its stages have made stay."""
    caller = request.user
    precondition = await Precondition.of(request, gateway, await own_job(gateway, caller, job_id))

    def decide(state: State) -> JobCancelled:
        record = own(state, caller)
        precondition.check(record)
        if not record.active:
            raise Refusal("job_not_active", details={"job_status": record.status})
        return JobCancelled(at=timestamp())

    record = own(await gateway.job_log.append(job_id, decide), caller)
    await _hint(gateway, job_id)
    return json_answer(await current(gateway, caller, record), status_code=202)


@delete(
    "/api/v1/jobs/{job_id:str}",
    opt={"requires": "write", "operation": _DELETE},
    media_type=MediaType.JSON,
    status_code=200,
)
async def delete_job(request: ApiRequest, gateway: Gateway, job_id: str) -> Response[bytes]:
    """Cancel an active job, or delete one that has ended. A job that ends meanwhile is left as it is."""
    caller = request.user
    record = await close_overdue(gateway, caller, await own_job(gateway, caller, job_id))
    precondition = await Precondition.of(request, gateway, record)
    if record.active:
        return await _cancelled(gateway, caller, job_id, precondition)
    await _delete(gateway, caller, job_id, precondition)
    return Response(b"", status_code=204)


async def _cancelled(gateway: Gateway, caller: Caller, job_id: str, precondition: Precondition) -> Response[bytes]:
    cancelled = False

    def decide(state: State) -> JobCancelled | None:
        nonlocal cancelled
        record = own(state, caller)
        precondition.check(record)
        cancelled = record.active
        return JobCancelled(at=timestamp()) if cancelled else None

    record = own(await gateway.job_log.append(job_id, decide), caller)
    if cancelled:
        await _hint(gateway, job_id)
    return json_answer(await current(gateway, caller, record), status_code=202 if cancelled else 200)


async def _delete(gateway: Gateway, caller: Caller, job_id: str, precondition: Precondition) -> None:
    """The record first: from then on nobody is shown an object that may be gone."""

    def decide(state: State) -> JobDeleted:
        record = own(state, caller)
        precondition.check(record)
        if waiting := pending(record):
            raise PromotionInProgress(waiting[0])
        return JobDeleted(at=timestamp(), reason="requested")

    await gateway.job_log.append(job_id, decide)
    failpoint("before", "remove")
    try:
        await gateway.store.delete_prefix(f"jobs/{job_id}/")
    except StorageError as error:
        # The job is deleted whatever becomes of its objects; the janitor removes what is left.
        log.warning("job.objects_left", job_id=job_id, error=str(error))


async def _hint(gateway: Gateway, job_id: str) -> None:
    """Tell the worker at once. One that does not hear it finds out at its next look at the job."""
    with contextlib.suppress(EventBusUnavailable):
        await gateway.bus.emit(subjects.cancel(job_id), b"")
