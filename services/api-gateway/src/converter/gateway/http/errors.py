"""Every error that a client can see: one table, one exception, one envelope.

    {"error": {"code": "…", "message": "…", "details": {…}, "request_id": "…"}}

The internal face keeps an older envelope, {"error": "message", "code": "…", "details": {…}}. A `Refusal` names a row
of `ERRORS` and adds what it knows; what other layers raise becomes a `Refusal` in `refusals`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from converter.contracts.job import TARGET_OBJECT_KEY_MAX_BYTES

SMALL_BODY_MAX_BYTES = 64 * 1024
"""The largest form field and the largest JSON body."""


class ClientError(NamedTuple):
    """What holds of every answer with this code. `hint` says what the caller can do, unless an answer knows better.

    `internal` is what only the internal face answers.
    """

    status: int
    message: str
    hint: str
    internal: bool = False


ERRORS: dict[str, ClientError] = {
    "validation_error": ClientError(400, "The request has bad fields.", "details.fields names each of them."),
    "invalid_multipart": ClientError(
        400,
        "The multipart body cannot be used.",
        "details.fields names the part that is wrong; /openapi describes the form.",
    ),
    "digest_mismatch": ClientError(
        400, "The model that arrived is not the one that model_sha256 names.", "Send the model again."
    ),
    "invalid_token": ClientError(
        401, "A valid bearer token is needed.", "Get a token for this audience from the Member Center."
    ),
    "token_expired": ClientError(401, "The token has expired.", "Get a new token from the Member Center."),
    "insufficient_scope": ClientError(
        403, "The token does not grant what this needs.", "Get a token with the scope details.required_scope."
    ),
    "tenant_mismatch": ClientError(
        403, "The token belongs to another tenant.", "Use a client of the tenant that this service is for."
    ),
    "user_assertion_invalid": ClientError(
        403, "The request does not prove for which user it is.", "Sign X-User-Assertion anew, with the time now."
    ),
    "user_mismatch": ClientError(
        403, "The request is for another user than it proves.", "Name the user of the token or of X-User-Assertion."
    ),
    "cross_site_request": ClientError(
        403, "Another site's page sent this.", "Use the converter's own page.", internal=True
    ),
    "job_not_found": ClientError(
        404, "There is no such job.", "List the jobs: it may have been deleted, have expired, or be another client's."
    ),
    "inputs_lost": ClientError(
        409, "The inputs of the job are no longer stored.", "Post the model and its images again.", internal=True
    ),
    "upload_not_found": ClientError(404, "There is no such upload.", "Begin a new one."),
    "not_found": ClientError(404, "There is nothing at this path.", "/openapi lists every path."),
    "method_not_allowed": ClientError(
        405, "This path does not take this method.", "The header Allow lists those it takes."
    ),
    "request_timeout": ClientError(408, "The request's body came too slowly.", "Send it again."),
    "user_has_active_job": ClientError(
        409, "This user has a job that is still active.", "Wait for it to end, then send the model again."
    ),
    "job_not_ready_for_promote": ClientError(
        409,
        "Only a completed job can be promoted.",
        "Wait for it to complete; one that has failed is to be sent again.",
    ),
    "source_not_available": ClientError(
        409, "That stage has made nothing that could be had.", "Name one of the sources in details.available."
    ),
    "promotion_in_progress": ClientError(
        409, "An artifact of this job is on its way to the file store.", "Wait until that promotion has ended."
    ),
    "job_not_active": ClientError(
        409, "The job has ended; there is nothing to cancel.", "DELETE removes it and what it made."
    ),
    "idempotency_in_progress": ClientError(
        409, "The first request with this Idempotency-Key is still being served.", "Send it again in a moment."
    ),
    "upload_offset_mismatch": ClientError(
        409, "The upload does not end at this Upload-Offset.", "Ask with HEAD where it ends, and continue there."
    ),
    "link_expired": ClientError(410, "The download link is past its time.", "Ask for a new one."),
    "precondition_failed": ClientError(
        412, "What is there is not what If-Match names.", "Get it anew, and decide again."
    ),
    "file_too_large": ClientError(413, "A file is over its limit.", "Send at most details.limit_bytes."),
    "unknown_host": ClientError(
        421,
        "This listener is not called by that name.",
        "The operator can allow it in INTERNAL_ALLOWED_HOSTS.",
        internal=True,
    ),
    "unsupported_media_type": ClientError(
        415, "The body is of a type that this path does not take.", "/openapi says which it takes."
    ),
    "range_not_satisfiable": ClientError(
        416, "The file ends before this range begins.", "Content-Range says how long it is."
    ),
    "invalid_object_key": ClientError(
        422,
        "The target object key cannot be used.",
        "Name a relative path without empty segments, `.` and `..`, of at most "
        f"{TARGET_OBJECT_KEY_MAX_BYTES} bytes: models/alice/yolo.nef.",
    ),
    "idempotency_mismatch": ClientError(
        422, "Another request was sent with this Idempotency-Key.", "Use a new key for every new request."
    ),
    "rate_limit_exceeded": ClientError(
        429, "The client has made as many requests as it may.", "Retry-After says when to go on."
    ),
    "headers_too_large": ClientError(
        431, "The request's headers are too large.", "Send fewer or shorter ones: details.limit_bytes for all together."
    ),
    "checksum_mismatch": ClientError(
        460, "The bytes that arrived are not those of Upload-Checksum.", "Send them again; none of them was kept."
    ),
    "internal_error": ClientError(500, "Something went wrong here.", "Name the request id when you report it."),
    "misconfiguration": ClientError(500, "The service is not set up right.", "Tell the operator the request id."),
    "storage_unavailable": ClientError(502, "Object storage does not answer.", "Send the request again later."),
    "storage_full": ClientError(
        507, "Object storage has no room.", "Nothing was kept; send the request again when the operator has made room."
    ),
    "event_bus_full": ClientError(
        507,
        "The event log has no room.",
        "Nothing was changed; send the request again when the operator has made room.",
    ),
    "file_gateway_unavailable": ClientError(
        502,
        "The file store did not take the artifact.",
        "The job stays completed; promote it again, to another key where the file store refuses this one.",
    ),
    "auth_service_unavailable": ClientError(503, "The Member Center does not answer.", "Send the request again later."),
    "service_busy": ClientError(
        503, "As many uploads are under way as are allowed.", "Retry-After says when to try again."
    ),
    "event_bus_unavailable": ClientError(503, "The event bus does not answer.", "Send the request again later."),
}


class FieldError(Struct, frozen=True):
    """One bad field: its name as the client wrote it, what was found, and what is allowed."""

    field: str
    message: str


class Refusal(Exception):
    """The request is answered with an error.

    Args:
        code: a key of `ERRORS`.
        message: a sentence with the facts of this case, instead of the code's own.
        details: facts for programs.
        headers: what else the answer carries.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        row = ERRORS[code]
        self.code, self.status, self.message = code, row.status, message or row.message
        self.details: dict[str, Any] = {"hint": row.hint} | dict(details or {})
        self.headers = dict(headers or {})
        super().__init__(f"{code}: {self.message}")


def bad_fields(problems: Iterable[FieldError]) -> Refusal:
    """400 `validation_error` that names all of `problems`."""
    return Refusal("validation_error", details={"fields": list(problems)})


def bad_part(field: str, message: str, **details: Any) -> Refusal:  # noqa: ANN401 - JSON values
    """400 `invalid_multipart` because of one part."""
    return Refusal(
        "invalid_multipart", f"{field}: {message}", details={"fields": [FieldError(field, message)], **details}
    )


Envelope = Callable[[Refusal, str], bytes]
"""Writes the JSON body of an error, given the request's id."""


def envelope(refusal: Refusal, request_id: str) -> bytes:
    """The JSON body of the answer."""
    return msgspec.json.encode(
        {
            "error": {
                "code": refusal.code,
                "message": refusal.message,
                "details": refusal.details,
                "request_id": request_id,
            }
        }
    )


def older_envelope(refusal: Refusal, request_id: str) -> bytes:  # noqa: ARG001 - its header says it
    """The JSON body of the answer on the internal face."""
    return msgspec.json.encode({"error": refusal.message, "code": refusal.code, "details": refusal.details})
