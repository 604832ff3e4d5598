"""Creates a job from a form: once for each `Idempotency-Key`, or not at all for a dry run."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import structlog
from litestar import Response, post
from litestar.enums import MediaType
from msgspec import Struct
from multipart import parse_options_header

from converter.common.bus import EventBusUnavailable
from converter.common.failpoint import failpoint
from converter.common.idempotency import Earlier, Hold, InProgress
from converter.common.identifiers import uuid7
from converter.common.lifecycle import IllegalTransition
from converter.common.storage import StorageError
from converter.common.users import UserHasActiveJob
from converter.contracts.facts import JobCreated
from converter.contracts.job import JobRecord, JobRequest, timestamp
from converter.gateway import deadlines
from converter.gateway.endpoints.jobs import ApiRequest, current, own
from converter.gateway.gateway import Gateway
from converter.gateway.http.answers import json_answer
from converter.gateway.http.errors import FieldError, Refusal, bad_fields
from converter.gateway.intake.content_digest import ContentDigest
from converter.gateway.intake.inputs import FormBody, Inputs, fingerprint, received
from converter.gateway.intake.model_part import UnusableModel
from converter.gateway.intake.shelf import Nowhere
from converter.gateway.intake.verdict import Verdict, unusable, verdict
from converter.gateway.openapi.job_form import CREATE_JOB
from converter.gateway.uploads import UploadNotFound

log = structlog.get_logger()

_BOUNDARY_MAX_CHARS = 200
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class _Order(Struct, frozen=True, kw_only=True):
    """One request for a job."""

    client_id: str
    request_id: str
    body: FormBody


@post("/api/v1/jobs", opt={"requires": "write", "operation": CREATE_JOB}, media_type=MediaType.JSON)
async def create_job(request: ApiRequest, gateway: Gateway) -> Response[bytes]:
    """Take in a model and its images, then create the job. The user's lock is claimed last: an upload holds nothing."""
    dry_run, key = _dry_run(request.scope["query_string"]), _idempotency_key(request)
    order = _Order(
        client_id=request.user.client_id,
        request_id=request.state["request_id"],
        body=FormBody(
            receive=request.receive,
            boundary=multipart_boundary(request, gateway.limits.body_max_bytes),
            digest=ContentDigest(request.headers.get("content-digest")),
            limits=gateway.limits,
            pace=gateway.pace,
        ),
    )
    with gateway.upload_slots.taken():
        if dry_run:
            return json_answer(await _judged(gateway, order))
        if key is None:
            return await _answer(gateway, await _new(gateway, order, uuid7(), None))
        try:
            return await _once(gateway, order, key)
        except InProgress:
            raise Refusal("idempotency_in_progress") from None


async def _answer(gateway: Gateway, record: JobRecord, headers: dict[str, str] | None = None) -> Response[bytes]:
    location = {"Location": f"/api/v1/jobs/{record.job_id}"}
    return json_answer(await current(gateway, record), status_code=201, headers=location | (headers or {}))


async def _judged(gateway: Gateway, order: _Order) -> Verdict:
    """The verdict on a form of which nothing is kept."""

    async def whatever_the_lock(_: str) -> None:
        """No job is going to be created."""

    nowhere = Nowhere()
    find_model = gateway.named_models.finder(order.client_id, nowhere, look_into_known=True)
    try:
        async with received(
            order.body, shelf=nowhere, job_id=uuid7(), look_at_lock=whatever_the_lock, find_model=find_model
        ) as inputs:
            assert inputs.skimmed is not None  # noqa: S101 - every model has been looked into
            count = inputs.ref_images.count if inputs.ref_images else 0
            return verdict(inputs.order, inputs.model, inputs.skimmed, count)
    except UnusableModel as error:
        return unusable(error.refused)


async def _once(gateway: Gateway, order: _Order, key: str) -> Response[bytes]:
    """The job that the key stands for, created unless it has been.

    Raises:
        InProgress: another request with the key is being served.
        Refusal: `idempotency_mismatch`, and all that `_new` refuses.
    """
    if earlier := await gateway.idempotency_keys.earlier(order.client_id, key):
        return await _answer(gateway, await _repeated(order, earlier), {"Idempotency-Replayed": "true"})
    job_id = uuid7()
    async with gateway.idempotency_keys.held(order.client_id, key, job_id) as hold:
        return await _answer(gateway, await _new(gateway, order, job_id, hold))


async def _repeated(order: _Order, earlier: Earlier) -> JobRecord:
    if await fingerprint(order.body) != earlier.fingerprint:
        raise Refusal("idempotency_mismatch")
    if not isinstance(earlier.job, JobRecord):
        raise Refusal("job_not_found", "The job that was created with this key has been deleted.")
    return earlier.job


async def _new(gateway: Gateway, order: _Order, job_id: str, hold: Hold | None) -> JobRecord:
    """Take in the form and create the job."""
    client_id = order.client_id

    async def look_at_lock(user_id: str) -> None:
        if held := await gateway.active_jobs.holder(client_id, user_id):
            raise held

    async with received(
        order.body,
        shelf=gateway.store,
        job_id=job_id,
        look_at_lock=look_at_lock,
        find_model=gateway.named_models.finder(client_id, gateway.store),
    ) as inputs:
        if hold is not None:
            await hold.bind(inputs.fingerprint)
        try:
            record = await _create(gateway, job_id, inputs, client_id, order.request_id)
        except UserHasActiveJob:
            if hold is not None:
                hold.release()
            raise
    await _tidy_up(gateway, client_id, inputs)
    return record


async def _tidy_up(gateway: Gateway, client_id: str, inputs: Inputs) -> None:
    try:
        await gateway.named_models.release(client_id, inputs.order)
    except (StorageError, UploadNotFound) as error:
        log.warning("uploads.not_removed", upload_id=inputs.order.model_upload_id, error=str(error))


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
        record = own(await gateway.job_log.append(job_id, lambda _: fact), client_id)
    except IllegalTransition:
        # This gateway slept past the claim's grace and the lock was taken over.
        inputs.release()
        raise await gateway.active_jobs.holder(client_id, user_id) or UserHasActiveJob(job_id, None) from None
    await _list_model(gateway, client_id, job_id, inputs)
    return record


async def _list_model(gateway: Gateway, client_id: str, job_id: str, inputs: Inputs) -> None:
    try:
        await gateway.sent_models.add(client_id, job_id, inputs.model)
    except EventBusUnavailable as error:
        # The job stands; its model just cannot be named by digest.
        log.warning("models.not_listed", job_id=job_id, error=str(error))


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


def _dry_run(query_string: bytes) -> bool:
    found = [
        value for name, value in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True) if name == "dry_run"
    ]
    if found not in ([], ["true"], ["false"]):
        raise bad_fields([FieldError("dry_run", "allowed: true or false, once")])
    return found == ["true"]


def _idempotency_key(request: ApiRequest) -> str | None:
    sent = request.headers.getall("idempotency-key", [])
    if len(sent) > 1 or (sent and not _KEY.fullmatch(sent[0])):
        raise bad_fields([FieldError("Idempotency-Key", "allowed: 1 to 255 visible ASCII characters, once")])
    return sent[0] if sent else None
