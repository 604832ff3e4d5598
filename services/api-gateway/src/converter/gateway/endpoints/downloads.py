"""Artifacts by link: a client that may read a job makes one, and whoever is given it may fetch the file."""

from __future__ import annotations

from litestar import Response, get, post
from litestar.enums import MediaType
from msgspec import Struct
from msgspec.structs import replace

from converter.contracts.job import STAGES, Artifact, JobRecord, Timestamp
from converter.gateway.endpoints.artifacts import artifact_answer
from converter.gateway.endpoints.jobs import ApiRequest, shown_job
from converter.gateway.endpoints.links import Link, LinkExpired, LinkInvalid
from converter.gateway.endpoints.orders import read_order, require_json, source_in
from converter.gateway.gateway import Gateway
from converter.gateway.http.answers import json_answer
from converter.gateway.http.body import whole
from converter.gateway.http.errors import SMALL_BODY_MAX_BYTES, FieldError, Refusal, bad_fields
from converter.gateway.http.written import shown
from converter.gateway.openapi.documentation import (
    BINARY,
    IF_MATCH,
    IF_NONE_MATCH,
    NOT_MODIFIED,
    Answer,
    Body,
    Operation,
    Parameter,
)


class DownloadLink(Struct, frozen=True, kw_only=True):
    """Where an artifact can be fetched without a token, and until when."""

    url: str
    expires_at: Timestamp


_FILES = ("artifact", "provenance")
_CREATE = Operation(
    body=Body(
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "source": {"enum": [*STAGES, None], "description": "By default the last stage's."},
                "file": {
                    "enum": [*_FILES],
                    "default": "artifact",
                    "description": "The artifact, or the signed statement of how it was made.",
                },
            },
        },
        required=False,
    ),
    answers={201: Answer("The link.", DownloadLink, headers=("Location",))},
    refusals=("source_not_available",),
    tag="artifacts",
)
_OF_FILES = ("ETag", "Content-Disposition", "Accept-Ranges", "Repr-Digest")
_KINDS = (BINARY, "application/*")
"""Each toolchain names its own; what makes clients from the document knows the first for any file."""
DOWNLOAD = Operation(
    parameters=(
        IF_MATCH,
        IF_NONE_MATCH,
        Parameter("Range", {"type": "string"}, "One range of bytes.", "header"),
        Parameter("If-Range", {"type": "string"}, "Give the range only if this is still the ETag.", "header"),
    ),
    answers={
        200: Answer("The file.", {}, _OF_FILES, _KINDS),
        206: Answer("The range.", {}, (*_OF_FILES, "Content-Range"), _KINDS),
        304: replace(NOT_MODIFIED, headers=(*NOT_MODIFIED.headers, "Accept-Ranges")),
    },
    refusals=(
        "link_expired",
        "precondition_failed",
        "range_not_satisfiable",
        "storage_unavailable",
        "event_bus_unavailable",
    ),
    refused_with={"precondition_failed": ("ETag",)},
    tag="artifacts",
)


@post(
    "/api/v1/jobs/{job_id:str}/download-tokens",
    opt={"requires": "read", "operation": _CREATE},
    media_type=MediaType.JSON,
)
async def create_download_link(request: ApiRequest, gateway: Gateway, job_id: str) -> Response[bytes]:
    """A link to what a stage has made, by default the last that the job runs, or to the signed statement of how.

    The body may be left out.
    """
    body = await whole(request.receive, limit_bytes=SMALL_BODY_MAX_BYTES, pace=gateway.pace)
    if body:
        require_json(request)
    given, problems = read_order(body or b"{}", ["source", "file"])
    source = source_in(given, problems)
    file = given.get("file", "artifact")
    if file not in _FILES:
        problems.append(FieldError("file", f"found {shown(file)}; allowed: {', '.join(_FILES)}"))
    if problems:
        raise bad_fields(problems)
    record = await shown_job(gateway, request.user, job_id)
    source = source or record.request.stages[-1]
    look = record.artifact if file == "artifact" else record.provenance
    artifact = look(source)
    if artifact is None:
        available = [stage for stage in record.stages if look(stage)]
        raise Refusal("source_not_available", details={"source": source, "file": file, "available": available})
    token, expires_at = gateway.links.token(Link(job_id, source, artifact.sha256))
    url = f"{gateway.public_base_url}/api/v1/downloads/{token}"
    return json_answer(
        DownloadLink(url=url, expires_at=expires_at),
        status_code=201,
        headers={"Location": url, "Cache-Control": "no-store"},
    )


@get("/api/v1/downloads/{token:str}", opt={"requires": None, "operation": DOWNLOAD}, media_type=MediaType.JSON)
async def download(request: ApiRequest, gateway: Gateway, token: str) -> Response[bytes]:
    """The artifact behind a link, or the range of it that is asked for."""
    try:
        link = gateway.links.read(token)
    except LinkInvalid:
        raise _no_file() from None
    except LinkExpired as expired:
        raise Refusal("link_expired", details={"expired_at": expired.at}) from None
    artifact = await _linked(gateway, link)
    return artifact_answer(request, gateway.store, artifact, lambda: _linked(gateway, link))


async def _linked(gateway: Gateway, link: Link) -> Artifact:
    state = await gateway.job_log.read(link.job_id)
    if isinstance(state, JobRecord):
        for linked in (state.artifact(link.stage), state.provenance(link.stage)):
            if linked and linked.sha256 == link.sha256:
                return linked
    raise _no_file()


def _no_file() -> Refusal:
    return Refusal("not_found", "There is no file behind this link.", details={"hint": "Ask for a new one."})
