"""What differs between the documents of the two faces: their words, their errors, and who may ask."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import msgspec
from msgspec import Struct

from converter.gateway.http.errors import Envelope, Refusal, envelope, older_envelope
from converter.gateway.internal.guard import SAFE_METHODS
from converter.gateway.internal.operators import OperatorJob
from converter.gateway.openapi.documentation import Parameter, Schema
from converter.gateway.representation import JobPage, JobResource

SCHEMAS = "#/components/schemas/"
EXAMPLE_ID = "0199c1f2-6a00-7000-8000-000000000001"
USER_ASSERTION = Parameter(
    "X-User-Assertion",
    {"type": "string"},
    "For which user the request is, where the service asks for it: `<user_id>:<seconds since 1970>:<HMAC-SHA256>`.",
    "header",
)
WITH_TOKEN = (
    "invalid_token",
    "token_expired",
    "insufficient_scope",
    "tenant_mismatch",
    "user_assertion_invalid",
    "user_mismatch",
    "rate_limit_exceeded",
    "misconfiguration",
    "auth_service_unavailable",
    "event_bus_unavailable",
)


class Security(Struct, frozen=True):
    """Where clients get tokens, and the scope that stands for each need."""

    token_url: str = "https://member-center.example/oauth2/token"  # noqa: S105 - an address
    read: str = "converter:job.read"
    write: str = "converter:job.write"

    def scope(self, need: str) -> str:
        """The scope for `read` or `write`."""
        return self.read if need == "read" else self.write

    def schemes(self) -> dict[str, Any]:
        """As the document names them."""
        scopes = {self.read: "Read the client's jobs.", self.write: "Create and change jobs."}
        flow = {"tokenUrl": self.token_url, "scopes": scopes}
        return {
            "member_center": {"type": "oauth2", "flows": {"clientCredentials": flow}},
            "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT (RFC 9068)"},
        }


class Face(Struct, frozen=True, kw_only=True):
    """What holds of a whole face.

    Args:
        title: of its document.
        description: what it says first.
        envelope: writes its errors.
        error: makes the schema of an error, given that of its code.
        always: what any request may be refused with.
        changing: what a request that changes something may be refused with besides.
        job_ids: where an answer names a job that other operations can be asked about.
        security: how a client proves itself, where it has to.
    """

    title: str
    description: str
    envelope: Envelope
    error: Callable[[Schema], Schema]
    always: tuple[str, ...]
    changing: tuple[str, ...] = ()
    job_ids: tuple[tuple[type, str], ...]
    security: Security | None = None

    def example(self, code: str) -> dict[str, Any]:
        """An answer with `code`."""
        return {"value": msgspec.json.decode(self.envelope(Refusal(code), EXAMPLE_ID))}

    def refusals(self, methods: Collection[str], need: str | None) -> tuple[str, ...]:
        """What any request with one of `methods` may be refused with, when its handler has this need of a token."""
        changing = () if SAFE_METHODS.issuperset(methods) else self.changing
        return (*self.always, *changing, *(WITH_TOKEN if need else ()))


_FIELDS = {"type": "array", "items": {"$ref": f"{SCHEMAS}FieldError"}, "description": "Every bad field."}
_MESSAGE: Schema = {"type": "string"}
_DETAILS: Schema = {
    "type": "object",
    "required": ["hint"],
    "properties": {"hint": {"type": "string", "description": "What the caller can do."}, "fields": _FIELDS},
}


def _object(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "required": list(properties), "additionalProperties": False, "properties": properties}


def _error(code: Schema) -> Schema:
    told = {"code": code, "message": _MESSAGE, "details": _DETAILS, "request_id": {"type": "string"}}
    return _object({"error": _object(told)})


def _older_error(code: Schema) -> Schema:
    return _object({"error": _MESSAGE, "code": code, "details": _DETAILS})


def public_face(security: Security) -> Face:
    """What upstream back-ends reach."""
    return Face(
        title="Kneron Model Converter",
        description="""\
Turns ONNX models into artifacts for Kneron NPUs: ONNX, then BIE, then NEF.

Every error has the same envelope; its `code` is for programs. A path that is not listed is a 404 `not_found`, a method
that a path does not have a 405 `method_not_allowed` with `Allow`, and OPTIONS tells a path's methods. HEAD answers as
GET without the body. A job belongs to the client (`client_id` or `azp` of the token) that created it.
""",
        envelope=envelope,
        error=_error,
        always=("validation_error", "headers_too_large", "internal_error"),
        job_ids=((JobResource, "$response.body#/job_id"), (JobPage, "$response.body#/items/0/job_id")),
        security=security,
    )


def internal_face() -> Face:
    """What operators and the web page reach."""
    return Face(
        title="Kneron Model Converter, internal",
        description="""\
What operators and the web page use. It shows every client's jobs and authenticates nobody.

Every error has the same envelope; its `code` is for programs. A path that is not listed is a 404 `not_found`, a method
that a path does not have a 405 `method_not_allowed` with `Allow`, and OPTIONS tells a path's methods. HEAD answers as
GET without the body.
""",
        envelope=older_envelope,
        error=_older_error,
        always=("validation_error", "unknown_host", "headers_too_large", "internal_error"),
        changing=("cross_site_request",),
        job_ids=((OperatorJob, "$response.body#/job_id"),),
    )
