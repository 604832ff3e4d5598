"""Promotions: have an artifact uploaded to the file store, and wait for it."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from litestar import Response, post
from litestar.enums import MediaType
from msgspec import Struct

from converter.common.identifiers import uuid7
from converter.common.lifecycle import State, pending
from converter.common.promotion import out_of_time, request_promotion
from converter.contracts.facts import PromotionFailed, PromotionRequested
from converter.contracts.job import STAGES, TARGET_OBJECT_KEY_MAX_BYTES, JobRecord, Promotion, Stage, moment, timestamp
from converter.gateway.caller import Caller
from converter.gateway.endpoints.jobs import ApiRequest, own, own_job
from converter.gateway.endpoints.object_key import InvalidObjectKey, check_object_key
from converter.gateway.endpoints.orders import read_order, require_json, source_in
from converter.gateway.gateway import Gateway
from converter.gateway.http.answers import json_answer
from converter.gateway.http.body import whole
from converter.gateway.http.errors import ERRORS, SMALL_BODY_MAX_BYTES, FieldError, Refusal, bad_fields
from converter.gateway.http.headers import combined
from converter.gateway.http.written import shown
from converter.gateway.openapi.documentation import Answer, Body, Operation, Parameter
from converter.gateway.representation import PromotionResource, promotion_resource

_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"?')


class PromotionOrder(Struct, frozen=True, kw_only=True):
    """What to upload where; without `source` it is what the job's last stage made."""

    source: Stage | None
    target_object_key: str

    @classmethod
    def parse(cls, body: bytes) -> PromotionOrder:
        """The order in a JSON body.

        Raises:
            Refusal: `validation_error` that names every bad field, or `invalid_object_key`.
        """
        given, problems = read_order(body, cls.__struct_fields__)
        source, key = source_in(given, problems), given.get("target_object_key")
        if not isinstance(key, str):
            found = "missing" if key is None else f"found {shown(key)}; allowed: text"
            problems.append(FieldError("target_object_key", found))
        if problems or not isinstance(key, str):
            raise bad_fields(problems)
        try:
            return cls(source=source, target_object_key=check_object_key(key))
        except InvalidObjectKey as error:
            message = f"The target object key cannot be used: {error.why}."
            details = {"fields": [FieldError("target_object_key", error.why)]}
            raise Refusal("invalid_object_key", message, details=details) from error


_ORDER = {
    "title": "PromotionOrder",
    "type": "object",
    "required": ["target_object_key"],
    "additionalProperties": False,
    "properties": {
        "source": {"enum": [*STAGES, None], "description": "Which artifact; by default the last stage's."},
        "target_object_key": {
            "type": "string",
            "minLength": 1,
            "maxLength": TARGET_OBJECT_KEY_MAX_BYTES,
            "description": "Relative, without `..`, empty segments, backslashes and control characters; "
            f"{TARGET_OBJECT_KEY_MAX_BYTES} bytes.",
        },
    },
}
_PROMOTE = Operation(
    body=Body(_ORDER),
    parameters=(Parameter("Prefer", {"type": "string"}, "`respond-async`: do not wait for the upload.", "header"),),
    answers={
        200: Answer("The file store has it.", PromotionResource),
        202: Answer("It is under way; the job tells of it.", PromotionResource, ("Location", "Preference-Applied")),
    },
    refusals=(
        "job_not_ready_for_promote",
        "source_not_available",
        "promotion_in_progress",
        "invalid_object_key",
        "file_gateway_unavailable",
        "event_bus_full",
    ),
)


@post(
    "/api/v1/jobs/{job_id:str}/promote",
    opt={"requires": "write", "operation": _PROMOTE},
    media_type=MediaType.JSON,
    status_code=200,
)
async def promote(request: ApiRequest, gateway: Gateway, job_id: str) -> Response[bytes]:
    """Ask for the upload, or join the same one that is under way, and answer when the file store has the bytes."""
    caller = request.user
    require_json(request)
    order = PromotionOrder.parse(await whole(request.receive, limit_bytes=SMALL_BODY_MAX_BYTES, pace=gateway.pace))
    await close_overdue(gateway, caller, await own_job(gateway, caller, job_id))
    promotion = await _requested(gateway, caller, job_id, order)
    if promotion.status == "pending" and _prefers(request, "respond-async"):
        headers = {"Location": f"{caller.jobs_path}/{job_id}", "Preference-Applied": "respond-async"}
        return json_answer(promotion_resource(promotion), status_code=202, headers=headers)
    promotion = await _ended(gateway, caller, job_id, promotion)
    if promotion.status == "failed":
        raise _failure(promotion)
    return json_answer(promotion_resource(promotion))


def _prefers(request: ApiRequest, preference: str) -> bool:
    """Whether the request names the preference, with or without a value and parameters (RFC 7240 section 2)."""
    named = _QUOTED.sub("", combined(request.scope["headers"], b"prefer") or "").split(",")
    return any(re.split("[=;]", one)[0].strip().lower() == preference for one in named)


async def _requested(gateway: Gateway, caller: Caller, job_id: str, order: PromotionOrder) -> Promotion:
    """The promotion that does what `order` says: a new one, or one that does it already."""
    chosen = ""

    def decide(state: State) -> PromotionRequested | None:
        nonlocal chosen
        record, now = own(state, caller), datetime.now(UTC)
        decided = request_promotion(
            record,
            order.source or record.request.stages[-1],
            order.target_object_key,
            now=timestamp(now),
            deadline=timestamp(now + gateway.promote_timeout),
            promotion_id=uuid7(),
        )
        chosen = decided.promotion_id
        return decided if isinstance(decided, PromotionRequested) else None

    record = own(await gateway.job_log.append(job_id, decide), caller)
    return _promotion(record, chosen)


async def _ended(gateway: Gateway, caller: Caller, job_id: str, promotion: Promotion) -> Promotion:
    """`promotion` once it has ended. Past its deadline it is closed here, so that nothing is uploaded later."""

    def ended(state: State) -> bool:
        return not isinstance(state, JobRecord) or _promotion(state, promotion.promotion_id).status != "pending"

    left_s = (moment(promotion.deadline) - datetime.now(UTC)).total_seconds()
    try:
        state = await gateway.job_log.wait(job_id, ended, max(left_s, 0.0))
    except TimeoutError:
        state = await _close(gateway, job_id, promotion.promotion_id)
    return _promotion(own(state, caller), promotion.promotion_id)


async def close_overdue(gateway: Gateway, caller: Caller, record: JobRecord) -> JobRecord:
    """`record` after failing its pending promotions that are past their deadline: who waited for them may have died.

    Raises:
        Refusal: `job_not_found`; it was deleted meanwhile.
    """
    for promotion in pending(record):
        if moment(promotion.deadline) <= datetime.now(UTC):
            record = own(await _close(gateway, record.job_id, promotion.promotion_id), caller)
    return record


async def _close(gateway: Gateway, job_id: str, promotion_id: str) -> State:
    """Fail a promotion that is past its deadline, unless it has ended after all."""

    def close(state: State) -> PromotionFailed | None:
        if not isinstance(state, JobRecord) or _promotion(state, promotion_id).status != "pending":
            return None
        return out_of_time(_promotion(state, promotion_id), now=timestamp())

    return await gateway.job_log.append(job_id, close)


def _promotion(record: JobRecord, promotion_id: str) -> Promotion:
    return next(promotion for promotion in record.promotions if promotion.promotion_id == promotion_id)


def _failure(promotion: Promotion) -> Refusal:
    code = promotion.error_code if promotion.error_code in ERRORS else "file_gateway_unavailable"
    return Refusal(
        code or "file_gateway_unavailable",
        promotion.error_message,
        details={"promotion_id": promotion.promotion_id, "target_object_key": promotion.target_object_key},
    )
