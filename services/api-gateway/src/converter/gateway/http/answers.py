"""JSON answers, and the entity tags that spare sending them again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.enums import MediaType

from converter.gateway.http.errors import envelope
from converter.gateway.http.refusals import refusal_of

log = structlog.get_logger()

_PRIVATE = {"Cache-Control": "private, no-cache"}


def json_answer(
    content: object, *, status_code: int = 200, headers: Mapping[str, str] | None = None
) -> Response[bytes]:
    """`content` (Structs, lists, dicts) as JSON, with its strong `ETag` (RFC 9110 section 8.8.3)."""
    body = msgspec.json.encode(content)
    headers = {**_PRIVATE, "ETag": etag(body), **(headers or {})}
    return Response(body, status_code=status_code, media_type=MediaType.JSON, headers=headers)


def tagged(content: object, if_none_match: str | None) -> Response[bytes]:
    """As `json_answer`, or 304 when the client has just that."""
    answer = json_answer(content)
    tag = str(answer.headers["ETag"])
    if if_none_match is None or none_match(if_none_match, tag):
        return answer
    return Response(b"", status_code=304, headers={**_PRIVATE, "ETag": tag})


def etag_of(content: object) -> str:
    """The entity tag that `content` has as a JSON answer."""
    return etag(msgspec.json.encode(content))


def etag(body: bytes) -> str:
    """A strong entity tag of exactly these bytes."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def none_match(header: str, tag: str) -> bool:
    """Whether `If-None-Match: header` holds for what `tag` stands for (weak comparison, RFC 9110 section 13.1.2)."""
    tags = [entry.strip().removeprefix("W/") for entry in header.split(",")]
    return "*" not in tags and tag not in tags


def matches(header: str, tag: str) -> bool:
    """Whether `If-Match: header` holds for what `tag` stands for (strong comparison, RFC 9110 section 13.1.1)."""
    tags = [entry.strip() for entry in header.split(",")]
    return "*" in tags or tag in tags


def refused(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The answer to a request whose handling raised `error`."""
    refusal = refusal_of(error)
    if refusal.code == "internal_error":
        log.error("http.failed", exc_info=error)
    elif refusal.status >= 500:  # noqa: PLR2004 - the server's own errors start there
        log.warning("http.refused", code=refusal.code, error=str(error))
    else:
        log.info("http.refused", code=refusal.code, message=refusal.message)
    headers = {"Cache-Control": "no-store", **refusal.headers}
    body = envelope(refusal, request.state["request_id"])
    return Response(body, status_code=refusal.status, media_type=MediaType.JSON, headers=headers)
