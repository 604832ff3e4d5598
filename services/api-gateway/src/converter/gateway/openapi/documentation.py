"""How a handler says what it does: the vocabulary from which `openapi` makes the document.

A handler carries an `Operation` in its `opt`, beside what it requires:

    @get("/api/v1/jobs/{job_id:str}", opt={"requires": "read", "operation": Operation(
        answers={200: Answer("The job.", JobResource), 304: NOT_MODIFIED},
        parameters=(IF_NONE_MATCH,),
    )})

Its docstring is the description, its name the operation's id. The refusals that follow from `requires`, from a job's id
in the path and from a body are added by the generator; `refusals` names the others, by their codes in `errors.ERRORS`.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

JSON = "application/json"
BINARY = "application/octet-stream"

Schema = dict[str, Any]
"""A JSON Schema (2020-12), which is what OpenAPI 3.1 takes."""


class Answer(Struct, frozen=True):
    """One way to succeed.

    Args:
        description: when, in a sentence.
        body: the type of the JSON body, or a schema, or none.
        headers: names in `HEADERS`; those that follow from its body are added by the generator.
        media_type: of the body, or those that it may have.
    """

    description: str
    body: type | Schema | None = None
    headers: tuple[str, ...] = ()
    media_type: str | tuple[str, ...] = JSON


class Parameter(Struct, frozen=True):
    """What a request may carry in its query or its headers."""

    name: str
    schema: Schema
    description: str
    place: Literal["query", "header"] = "query"
    required: bool = False


class FilePart(Struct, frozen=True):
    """A file in a form: an example of its name, and its media types, with commas between."""

    file_name: str
    media_types: str


class Body(Struct, frozen=True):
    """What a request carries.

    Args:
        schema: a type or a schema.
        media_type: the only one that is taken.
        files: of a multipart form, the parts that are files.
        required: whether there must be one.
    """

    schema: type | Schema
    media_type: str = JSON
    files: dict[str, FilePart] = {}
    required: bool = True


class Operation(Struct, frozen=True, kw_only=True):
    """What a handler takes and answers.

    Args:
        answers: by their status.
        refusals: the codes of those that are its own.
        refused_with: headers that are particular to its refusals, by their code.
        headers: what any of its answers may carry.
        parameters: in its query and its headers.
        body: of a request.
        tag: under which it is listed.
    """

    answers: dict[int, Answer]
    refusals: tuple[str, ...] = ()
    refused_with: dict[str, tuple[str, ...]] = {}
    headers: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    tag: str = "jobs"


class Header(Struct, frozen=True):
    """A header of answers."""

    description: str
    schema: Schema


_COUNT: Schema = {"type": "integer", "minimum": 0}
HEADERS: dict[str, Header] = {
    "X-Request-Id": Header("Names this request in logs; the client's own if it sent a sane one.", {"type": "string"}),
    "ETag": Header(
        "Strong; changes exactly when the body does (RFC 9110).", {"type": "string", "pattern": '^"[^"]+"$'}
    ),
    "Cache-Control": Header("Whether the answer may be kept (RFC 9111).", {"type": "string"}),
    "Allow": Header("The methods that the path takes.", {"type": "string"}),
    "Location": Header("Where the resource is.", {"type": "string", "format": "uri-reference"}),
    "Retry-After": Header("Seconds to wait before trying again.", _COUNT),
    "WWW-Authenticate": Header("The challenge (RFC 6750).", {"type": "string"}),
    "RateLimit-Limit": Header("Requests that the client may make in a window.", _COUNT),
    "RateLimit-Remaining": Header("How many of them are left, about.", _COUNT),
    "RateLimit-Reset": Header("Seconds until the next window.", _COUNT),
    "X-RateLimit-Limit": Header("As RateLimit-Limit.", _COUNT),
    "X-RateLimit-Remaining": Header("As RateLimit-Remaining.", _COUNT),
    "Idempotency-Replayed": Header(
        "`true`: the first request's answer, the job as it was created, without its place in the queue.",
        {"type": "string"},
    ),
    "Preference-Applied": Header("The preference that was followed (RFC 7240).", {"type": "string"}),
    "Content-Disposition": Header("The file's name.", {"type": "string"}),
    "Content-Range": Header("Which bytes these are.", {"type": "string"}),
    "Accept-Ranges": Header("`bytes`: ranges may be asked for.", {"type": "string"}),
    "Repr-Digest": Header("The file's sha256 (RFC 9530).", {"type": "string"}),
    "Vary": Header("The request headers that the answer depends on.", {"type": "string"}),
    "Upload-Offset": Header("How many bytes have arrived.", _COUNT),
    "Upload-Length": Header("How many bytes the upload has.", _COUNT),
    "Upload-Expires": Header("When an unfinished upload is removed.", {"type": "string"}),
    "Upload-Metadata": Header("What the client said of its upload.", {"type": "string"}),
    "Tus-Resumable": Header("The version of the tus protocol.", {"type": "string"}),
    "Tus-Version": Header("The versions that are spoken.", {"type": "string"}),
    "Tus-Extension": Header("The extensions that are spoken.", {"type": "string"}),
    "Tus-Max-Size": Header("The largest upload.", _COUNT),
    "Tus-Checksum-Algorithm": Header("How `Upload-Checksum` may be computed.", {"type": "string"}),
}
OF_EVERY_ANSWER = ("X-Request-Id",)
OF_COUNTED_ANSWERS = tuple(name for name in HEADERS if "RateLimit" in name)
OF_REFUSALS: dict[str, tuple[str, ...]] = {
    "invalid_token": ("WWW-Authenticate",),
    "token_expired": ("WWW-Authenticate",),
    "insufficient_scope": ("WWW-Authenticate",),
    "tenant_mismatch": ("WWW-Authenticate",),
    "user_assertion_invalid": ("WWW-Authenticate",),
    "user_mismatch": ("WWW-Authenticate",),
    "rate_limit_exceeded": ("Retry-After",),
    "service_busy": ("Retry-After",),
    "range_not_satisfiable": ("Content-Range",),
}

PATH_PARAMETERS: dict[str, tuple[Schema, str]] = {
    "job_id": ({"type": "string", "format": "uuid"}, "The job's id, a UUIDv7 in lower case."),
    "token": ({"type": "string"}, "The token of a download link; it alone is the right to the file."),
    "filename": ({"type": "string"}, "A name in the job's `files`."),
    "path": ({"type": "string"}, "A file of the page."),
    "upload_id": ({"type": "string"}, "The upload's id."),
}

EVENT: Schema = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "event": {"type": "string"}, "data": {"type": "string"}},
}
"""One server-sent event; its data is JSON."""

NOT_MODIFIED = Answer("The client has just that (If-None-Match).", headers=("ETag", "Cache-Control"))
IF_NONE_MATCH = Parameter("If-None-Match", {"type": "string"}, "The ETag of what the client has.", "header")
IF_MATCH = Parameter("If-Match", {"type": "string"}, "Only if the resource still has this ETag.", "header")
