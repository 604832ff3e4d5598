"""Runs a job again with the same inputs, and other options where they are given."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Response, post
from litestar.enums import MediaType

from converter.common.identifiers import uuid7
from converter.common.storage import ObjectNotFound
from converter.contracts.job import JobRequest, Preprocess
from converter.gateway.endpoints.creation import create, created
from converter.gateway.endpoints.jobs import ApiRequest, own_job
from converter.gateway.endpoints.orders import read_order, require_json
from converter.gateway.gateway import Gateway
from converter.gateway.http.body import whole
from converter.gateway.http.errors import SMALL_BODY_MAX_BYTES, FieldError, Refusal, bad_fields
from converter.gateway.http.written import shown
from converter.gateway.intake.inputs import copied
from converter.gateway.intake.options import Fields, JobOrder
from converter.gateway.openapi.documentation import Answer, Body, Operation
from converter.gateway.openapi.job_form import JOB_FORM
from converter.gateway.representation import JobResource

CHANGEABLE = {
    "platform": "text",
    "model_id": "text or a whole number",
    "version": "text",
    "input_shape": "a text, or a list of texts, as name:1,3,224,224",
    "preprocess": "a text, or an object with mean and scale",
    "quantization": "a text, or an object of analysis keywords",
    "targets": "text",
}
"""The fields of the form that may be given anew, and what JSON stands for each."""

_CHANGES = {
    "title": "Changes",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        **{name: JOB_FORM["properties"][name] for name in CHANGEABLE},
        "preprocess": {"type": ["string", "object"], "description": "A preset, or an object with mean and scale."},
        "quantization": {
            "type": ["string", "object"],
            "description": "All the analysis keywords, not only changed ones.",
        },
    },
}
_RETRY = Operation(
    body=Body(_CHANGES, required=False),
    answers={201: Answer("The new job, queued.", JobResource, headers=("Location",))},
    refusals=("inputs_lost", "storage_unavailable", "storage_full", "event_bus_unavailable", "event_bus_full"),
)


@post("/jobs/{job_id:str}/retry", opt={"requires": None, "operation": _RETRY}, media_type=MediaType.JSON)
async def retry_job(request: ApiRequest, gateway: Gateway, job_id: str) -> Response[bytes]:
    """A new job with the inputs of this one, which the storage copies, and its options but for those in the body.

    It is the operators' own, whoever's the first was: that client did not ask for it, and its lock is not touched.
    """
    body = await whole(request.receive, limit_bytes=SMALL_BODY_MAX_BYTES, pace=gateway.pace)
    if body:
        require_json(request)
    given, problems = read_order(body or b"{}", list(CHANGEABLE))
    record = await own_job(gateway, request.user, job_id)
    order = _order(record.request, given, problems)
    new_id = uuid7()
    try:
        async with copied(record.request, order, shelf=gateway.store, job_id=new_id) as inputs:
            new = await create(gateway, request.user, new_id, inputs, request.state["request_id"])
    except ObjectNotFound:
        await own_job(gateway, request.user, job_id)  # it may have been deleted this very moment
        raise Refusal("inputs_lost") from None
    return await created(gateway, request.user, new)


def _order(request: JobRequest, given: dict[str, Any], problems: list[FieldError]) -> JobOrder:
    """The fields of the first job with those that are given in place of its own, checked as any form's.

    Raises:
        Refusal: `validation_error` that names every bad field.
    """
    fields = Fields(with_user=False)
    for name, texts in {**_texts(request), **_changes(given, problems)}.items():
        for text in texts:
            fields.add(name, text)
    order = fields.order()
    if problems or not isinstance(order, JobOrder):
        raise bad_fields([*problems, *([] if isinstance(order, JobOrder) else order)])
    return order


def _texts(request: JobRequest) -> dict[str, list[str]]:
    """The fields of a form that asks for just this."""
    options = request.options
    return {
        "platform": [request.platform],
        "model_id": [str(request.model_id)],
        "version": [request.version],
        "targets": [options.last_stage],
        "input_shape": [f"{name}:{','.join(map(str, shape))}" for name, shape in options.input_shape.items()],
        "preprocess": [_preprocess(options.preprocess)],
        "quantization": [msgspec.json.encode(options.quantization).decode()],
    }


def _preprocess(preprocess: Preprocess) -> str:
    return preprocess.preset or msgspec.json.encode(preprocess).decode()


def _changes(given: dict[str, Any], problems: list[FieldError]) -> dict[str, list[str]]:
    """JSON values as the form's texts; adds to `problems` what a form could not say."""
    changes: dict[str, list[str]] = {}
    for name, allowed in CHANGEABLE.items():
        match given.get(name):
            case None if name not in given:
                pass
            case str(text):
                changes[name] = [text]
            case int(number) if not isinstance(number, bool) and name == "model_id":
                changes[name] = [str(number)]
            case dict(value) if name in ("preprocess", "quantization"):
                changes[name] = [msgspec.json.encode(value).decode()]
            case list(texts) if name == "input_shape" and all(isinstance(text, str) for text in texts):
                changes[name] = texts
            case other:
                problems.append(FieldError(name, f"found {shown(other)}; allowed: {allowed}"))
    return changes
