"""Creates a job from a form: once for each `Idempotency-Key`, or not at all for a dry run."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from contextlib import suppress
from datetime import UTC, datetime

import structlog
from litestar import Response, post
from litestar.enums import MediaType
from msgspec import Struct
from multipart import parse_options_header

from converter.common.bus import BusRefused, EventBusUnavailable
from converter.common.eventlog import NOTHING
from converter.common.failpoint import failpoint
from converter.common.idempotency import Earlier, Hold, InProgress
from converter.common.identifiers import uuid7
from converter.common.lifecycle import IllegalTransition
from converter.common.storage import StorageError
from converter.common.users import ListedJob, UserHasActiveJob, user_key
from converter.contracts.facts import JobCreated
from converter.contracts.job import JobRecord, JobRequest, timestamp
from converter.gateway import deadlines
from converter.gateway.caller import Caller
from converter.gateway.endpoints.jobs import ApiRequest, current, own, require_user
from converter.gateway.gateway import Gateway
from converter.gateway.http.answers import json_answer
from converter.gateway.http.errors import FieldError, Refusal, bad_fields
from converter.gateway.http.headers import combined
from converter.gateway.http.query import flag_in, read_query
from converter.gateway.http.written import Bad
from converter.gateway.intake.content_digest import ContentDigest
from converter.gateway.intake.inputs import FormBody, Inputs, fingerprint, received
from converter.gateway.intake.model_part import UnusableModel
from converter.gateway.intake.shelf import Nowhere
from converter.gateway.intake.verdict import Verdict, unusable, verdict, warnings
from converter.gateway.openapi.job_form import CREATE_JOB
from converter.gateway.representation import job_resource
from converter.gateway.uploads import UploadNotFound

log = structlog.get_logger()

_BOUNDARY_MAX_CHARS = 200
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class _Order(Struct, frozen=True, kw_only=True):
    """One request for a job."""

    caller: Caller
    request_id: str
    body: FormBody

    async def whatever_the_lock(self, user_id: str) -> None:
        """No job is going to be created; still nobody asks for another user's."""
        require_user(self.caller, user_id)


@post("/api/v1/jobs", opt={"requires": "write", "operation": CREATE_JOB}, media_type=MediaType.JSON)
async def create_job(request: ApiRequest, gateway: Gateway) -> Response[bytes]:
    """Take in a model and its images, then create the job. The user's lock is claimed last: an upload holds nothing."""
    dry_run, key, digest = _announced(request)
    order = _Order(
        caller=request.user,
        request_id=request.state["request_id"],
        body=FormBody(
            receive=request.receive,
            boundary=multipart_boundary(request, gateway.limits.body_max_bytes),
            digest=digest,
            limits=gateway.limits,
            pace=gateway.pace,
            with_user=request.user.has_users,
        ),
    )
    with gateway.upload_slots.taken():
        if dry_run:
            return json_answer(await _judged(gateway, order))
        if key is None:
            return await created(gateway, order.caller, await _new(gateway, order, uuid7(), None))
        try:
            return await _once(gateway, order, key)
        except InProgress:
            raise Refusal("idempotency_in_progress") from None


async def created(gateway: Gateway, caller: Caller, record: JobRecord) -> Response[bytes]:
    """The answer to an order that has become a job."""
    return json_answer(await current(gateway, caller, record), status_code=201, headers=_location(caller, record))


def _location(caller: Caller, record: JobRecord) -> dict[str, str]:
    return {"Location": f"{caller.jobs_path}/{record.job_id}"}


async def _judged(gateway: Gateway, order: _Order) -> Verdict:
    """The verdict on a form of which nothing is kept."""
    nowhere = Nowhere()
    find_model = gateway.named_models.finder(order.caller.client_id, nowhere, look_into_known=True)
    try:
        async with received(
            order.body, shelf=nowhere, job_id=uuid7(), look_at_lock=order.whatever_the_lock, find_model=find_model
        ) as inputs:
            require_user(order.caller, inputs.order.user_id)
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
    caller = order.caller
    if earlier := await gateway.idempotency_keys.earlier(caller.client_id, key):
        record = await _repeated(order, earlier)
        # As the first answer, but for the job's place in the queue, which is not what it was.
        shown = caller.shown(record, job_resource(record, None))
        return json_answer(shown, status_code=201, headers=_location(caller, record) | {"Idempotency-Replayed": "true"})
    job_id = uuid7()
    async with gateway.idempotency_keys.held(caller.client_id, key, job_id) as hold:
        return await created(gateway, caller, await _new(gateway, order, job_id, hold))


async def _repeated(order: _Order, earlier: Earlier) -> JobRecord:
    """The job of the first request, if this one is the same.

    The whole form has to be read, files included: the fingerprint covers the fields and the digests of the files, in
    any order. Headers cannot tell whether two forms are the same: the boundary differs from try to try, and with it the
    length and the `Content-Digest`.
    """
    if not earlier.fingerprint.matches(await fingerprint(order.body, order.whatever_the_lock)):
        raise Refusal("idempotency_mismatch")
    if not isinstance(earlier.job, JobRecord):
        message, hint = "The job that was created with this key has been deleted.", "Use a new key to create another."
        raise Refusal("job_not_found", message, details={"hint": hint})
    return own(earlier.job, order.caller)


async def _new(gateway: Gateway, order: _Order, job_id: str, hold: Hold | None) -> JobRecord:
    """Take in the form and create the job."""
    client_id = order.caller.client_id

    async def look_at_lock(user_id: str) -> None:
        require_user(order.caller, user_id)
        if held := await gateway.active_jobs.holder(client_id, user_id):
            raise held

    async with received(
        order.body,
        shelf=gateway.store,
        job_id=job_id,
        look_at_lock=look_at_lock,
        find_model=gateway.named_models.finder(client_id, gateway.store),
    ) as inputs:
        require_user(order.caller, inputs.order.user_id)
        if hold is not None:
            await hold.bind(inputs.fingerprint)
        try:
            record = await create(gateway, order.caller, job_id, inputs, order.request_id)
        except (UserHasActiveJob, BusRefused):
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


async def create(gateway: Gateway, caller: Caller, job_id: str, inputs: Inputs, request_id: str) -> JobRecord:
    """List the job, claim its user's lock and set the timer of its deadline, all at once; then create it.

    A crash in between leaves entries without a job, which expire or are swept. A job without a user is not listed and
    needs no lock.

    Raises:
        UserHasActiveJob: another job of the user is active.
        BusRefused: the event bus does not take it, as when it is full; nothing is left of it.
        EventBusUnavailable: the job may or may not come to be; its inputs are kept.
    """
    client_id, user_id, now = caller.client_id, inputs.order.user_id, datetime.now(UTC)
    fact = JobCreated(
        at=timestamp(now),
        job_id=job_id,
        request=_job_request(inputs, client_id, request_id),
        expires_at=timestamp(now + gateway.artifact_ttl),
        warnings=warnings(inputs.order, inputs.skimmed),
    )
    try:
        timer = deadlines.schedule(gateway.bus, job_id, now + gateway.job_deadline)
        await (timer if user_id is None else _all_of(timer, _claim(gateway, client_id, user_id, job_id)))
        inputs.keep()
        failpoint("before", "create")
        # The id is new, so the first write expects an empty log. If it is not, the second one reads it and decides.
        created = await gateway.job_log.append_after(job_id, NOTHING, fact)
        record = own(created.state if created else await gateway.job_log.append(job_id, lambda _: fact), caller)
    except BusRefused:
        inputs.release()
        if user_id is not None:
            await _unclaim(gateway, client_id, user_id, job_id)
        raise
    except IllegalTransition:
        # This gateway slept past the grace of the claim, or of the key, and what it held was taken over.
        inputs.release()
        holder = await gateway.active_jobs.holder(client_id, user_id) if user_id is not None else None
        raise holder or UserHasActiveJob(job_id, None) from None
    await _list_model(gateway, client_id, job_id, inputs)
    return record


async def _claim(gateway: Gateway, client_id: str, user_id: str, job_id: str) -> None:
    try:
        await _all_of(
            gateway.user_jobs.add(client_id, user_id, job_id),
            gateway.active_jobs.claim(client_id, user_id, job_id),
        )
    except UserHasActiveJob:
        with suppress(EventBusUnavailable, BusRefused):  # the janitor finds an entry without a job
            await gateway.user_jobs.forget(ListedJob(user_key(client_id, user_id), job_id))
        raise


async def _all_of(*writes: Coroutine[None, None, None]) -> None:
    """Do `writes` at once, each to its end; then raise what one of them raised."""
    for outcome in await asyncio.gather(*writes, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


async def _unclaim(gateway: Gateway, client_id: str, user_id: str, job_id: str) -> None:
    """Take back what `_claim` wrote for a job that does not come to be; what cannot be taken back heals by itself."""
    user = user_key(client_id, user_id)
    with suppress(EventBusUnavailable, BusRefused):
        await gateway.active_jobs.forget(user, job_id)
        await gateway.user_jobs.forget(ListedJob(user, job_id))


async def _list_model(gateway: Gateway, client_id: str, job_id: str, inputs: Inputs) -> None:
    try:
        await gateway.sent_models.add(client_id, job_id, inputs.model)
    except (EventBusUnavailable, BusRefused) as error:
        # The job stands; its model just cannot be named by digest.
        log.warning("models.not_listed", job_id=job_id, error=str(error))


def _job_request(inputs: Inputs, client_id: str, request_id: str) -> JobRequest:
    order = inputs.order
    return JobRequest(
        client_id=client_id,
        user_id=order.user_id or "",
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
    if (combined(request.scope["headers"], b"content-encoding") or "identity") != "identity":
        raise Refusal("unsupported_media_type", details={"hint": "Send the body without a Content-Encoding."})
    if int(request.headers.get("content-length", "0")) > body_max_bytes:
        raise Refusal("file_too_large", "The body is over its limit.", details={"limit_bytes": body_max_bytes})
    boundary: str = parameters.get("boundary", "")
    if not 1 <= len(boundary) <= _BOUNDARY_MAX_CHARS:
        hint = f"Name one of 1 to {_BOUNDARY_MAX_CHARS} characters: multipart/form-data; boundary=…"
        raise Refusal("invalid_multipart", "Content-Type names no usable boundary.", details={"hint": hint})
    return boundary


def _announced(request: ApiRequest) -> tuple[bool, str | None, ContentDigest]:
    """What stands before the form: whether it is a dry run, its `Idempotency-Key` and its `Content-Digest`.

    Raises:
        Refusal: `validation_error` that names all that is bad of them.
    """
    # A parameter that is not known may be `dry_run` misspelt, and the caller does not want a job.
    given, problems = read_query(request.scope["query_string"], ["dry_run"])
    dry_run = flag_in(given, "dry_run", problems)
    sent = request.headers.getall("idempotency-key", [])
    if len(sent) > 1 or (sent and not _KEY.fullmatch(sent[0])):
        problems.append(FieldError("Idempotency-Key", "allowed: 1 to 255 visible ASCII characters, once"))
    try:
        digest = ContentDigest(combined(request.scope["headers"], b"content-digest") or "")
    except Bad as bad:
        problems += [FieldError("Content-Digest", message) for message in bad.messages]
    if problems:
        raise bad_fields(problems)
    return dry_run, sent[0] if sent else None, digest
