"""JSON answers, and the entity tags that spare sending them again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.enums import MediaType
from litestar.types import Send
from msgspec import Struct

from converter.gateway.http.errors import Refusal
from converter.gateway.http.refusals import refusal_of
from converter.gateway.metrics import REFUSALS

log = structlog.get_logger()

_PRIVATE = {"Cache-Control": "private, no-cache"}


def json_answer(
    content: object, *, status_code: int = 200, headers: Mapping[str, str] | None = None
) -> Response[bytes]:
    """`content` (Structs, lists, dicts) as JSON, with its strong `ETag` (RFC 9110 section 8.8.3)."""
    body = msgspec.json.encode(content)
    headers = {**_PRIVATE, "ETag": etag(body), **(headers or {})}
    return Response(body, status_code=status_code, media_type=MediaType.JSON, headers=headers)


class Tagged(Struct, frozen=True):
    """JSON and its entity tag, ready to be sent as often as it is asked for."""

    body: bytes
    tag: str

    @classmethod
    def of(cls, content: object) -> Tagged:
        """`content` encoded."""
        body = msgspec.json.encode(content)
        return cls(body, etag(body))

    def answer(self, if_none_match: str | None) -> Response[bytes]:
        """The whole, or 304 when the client has just that."""
        headers = {**_PRIVATE, "ETag": self.tag}
        if not_modified(if_none_match, self.tag):
            return Response(b"", status_code=304, headers=headers)
        return Response(self.body, media_type=MediaType.JSON, headers=headers)

    async def send(self, if_none_match: str | None, send: Send) -> None:
        """As `answer`, without the framework (ASGI)."""
        headers = [(b"cache-control", _PRIVATE["Cache-Control"].encode()), (b"etag", self.tag.encode())]
        if not_modified(if_none_match, self.tag):
            status, body = 304, b""
        else:
            status, body = 200, self.body
            headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def etag_of(content: object) -> str:
    """The entity tag that `content` has as a JSON answer."""
    return etag(msgspec.json.encode(content))


def etag(body: bytes) -> str:
    """A strong entity tag of exactly these bytes."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def not_modified(if_none_match: str | None, tag: str) -> bool:
    """Whether the client has what `tag` stands for, and gets a 304 (weak comparison, RFC 9110 section 13.1.2)."""
    tags = [entry.strip().removeprefix("W/") for entry in (if_none_match or "").split(",")]
    return "*" in tags or tag in tags


def matches(header: str, tag: str) -> bool:
    """Whether `If-Match: header` holds for what `tag` stands for (strong comparison, RFC 9110 section 13.1.1)."""
    tags = [entry.strip() for entry in header.split(",")]
    return "*" in tags or tag in tags


def told(error: Exception) -> Refusal:
    """What the client is told of `error`; the log is told the rest."""
    refusal = refusal_of(error)
    REFUSALS.labels(refusal.code).inc()
    if refusal.code == "internal_error":
        log.error("http.failed", exc_info=error)
    elif refusal.status >= 500:  # noqa: PLR2004 - the server's own errors start there
        log.warning("http.refused", code=refusal.code, error=str(error))
    else:
        log.info("http.refused", code=refusal.code, message=refusal.message)
    return refusal


def refused(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The answer to a request whose handling raised `error`."""
    refusal = told(error)
    headers = {"Cache-Control": "no-store", **refusal.headers}
    body = request.state["envelope"](refusal, request.state["request_id"])
    return Response(body, status_code=refusal.status, media_type=MediaType.JSON, headers=headers)
