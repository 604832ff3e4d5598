"""The document of the API, for programs at `/openapi` and for people at `/openapi/docs`.

The page is made from the document when the gateway starts: plain HTML, no scripts, nothing from elsewhere.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.enums import MediaType
from msgspec import Struct

from converter.gateway.http.answers import etag, not_modified
from converter.gateway.http.errors import ERRORS
from converter.gateway.http.headers import combined, page_policy
from converter.gateway.openapi.documentation import IF_NONE_MATCH, NOT_MODIFIED, Answer, Operation
from converter.gateway.openapi.faces import SCHEMAS

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem;color:#1d2129;background:#fff}
h2{margin-top:3rem;border-bottom:1px solid #c9ced6}h3{margin:2rem 0 .3rem}nav ul{columns:2;padding-left:1rem}
code,pre{font:14px/1.5 ui-monospace,monospace;background:#f2f4f7}pre{padding:.8rem;overflow:auto}
table{border-collapse:collapse;width:100%;margin:.5rem 0}th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;
border-bottom:1px solid #dde1e7}.verb{font-weight:700;color:#0b57a4}td:first-child{white-space:nowrap}
@media(prefers-color-scheme:dark){body{color:#e4e7ec;background:#14171c}code,pre{background:#20252d}
.verb,a{color:#7db8f2}}
"""
POLICY = page_policy(STYLE)


class Published(Struct, frozen=True):
    """The document and its page, as they are sent."""

    document: bytes
    page: bytes

    @classmethod
    def of(cls, document: dict[str, Any]) -> Published:
        """Both forms of `document`."""
        return cls(msgspec.json.encode(document), page(document).encode())


_DOCUMENT = Operation(
    answers={200: Answer("The document.", {"type": "object"}, headers=("ETag",)), 304: NOT_MODIFIED},
    parameters=(IF_NONE_MATCH,),
    tag="service",
)
_PAGE = Operation(
    answers={
        200: Answer("The page.", {"type": "string"}, headers=("ETag",), media_type="text/html"),
        304: NOT_MODIFIED,
    },
    parameters=(IF_NONE_MATCH,),
    tag="service",
)


@get("/openapi", opt={"requires": None, "operation": _DOCUMENT}, media_type=MediaType.JSON)
async def get_openapi(request: Request[None, None, State], published: Published) -> Response[bytes]:
    """Describe this API (OpenAPI 3.1)."""
    return _sent(request, published.document, MediaType.JSON)


@get("/openapi/docs", opt={"requires": None, "operation": _PAGE}, media_type=MediaType.HTML)
async def get_docs(request: Request[None, None, State], published: Published) -> Response[bytes]:
    """Describe this API on a page for people."""
    answer = _sent(request, published.page, MediaType.HTML)
    answer.headers["Content-Security-Policy"] = POLICY
    return answer


def _sent(request: Request[None, None, State], body: bytes, media_type: MediaType) -> Response[bytes]:
    headers = {"Cache-Control": "no-cache", "ETag": etag(body)}
    if not_modified(combined(request.scope["headers"], b"if-none-match"), headers["ETag"]):
        return Response(b"", status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


def page(document: dict[str, Any]) -> str:
    """The document as an HTML page."""
    info = document["info"]
    title = f"{html.escape(info['title'])} {html.escape(info['version'])}"
    content = "".join(_page_of(document))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style>'
        f"<h1>{title}</h1>{_prose(info['description'])}{content}</html>"
    )


def _page_of(document: dict[str, Any]) -> Iterator[str]:
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method != "head"
    ]
    yield '<nav><ul><li><a href="#errors">Errors</a></li><li><a href="#schemas">Schemas</a></li>'
    for path, method, operation in operations:
        yield f'<li><a href="#{operation["operationId"]}">{method.upper()} {html.escape(path)}</a></li>'
    yield "</ul></nav><h2>Operations</h2>"
    for path, method, operation in operations:
        yield from _operation(path, method, operation)
    yield '<h2 id="errors">Errors</h2>'
    yield _table(("code", "message", "hint"), [
        (_code(code), html.escape(ERRORS[code].message), html.escape(ERRORS[code].hint))
        for code in document["components"]["examples"]
    ])  # fmt: skip
    yield '<h2 id="schemas">Schemas</h2>'
    for name, schema in document["components"]["schemas"].items():  # names of types: nothing to escape
        yield f'<details id="schema-{name}"><summary>{name}</summary>{_json(schema)}</details>'


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f'<h3 id="{operation["operationId"]}"><span class="verb">{method.upper()}</span> {_code(path)}</h3>'
    yield _prose(operation["summary"]) + _prose(operation.get("description", ""))
    scopes = [scope for needed in operation["security"] for scope in needed.get("member_center", ())]
    yield "".join(f"<p>Needs {_code(scope)}.</p>" for scope in scopes)
    parameters = [
        (_code(parameter["name"]), parameter["in"], html.escape(parameter["description"]))
        for parameter in operation["parameters"]
    ]
    if parameters:
        yield _table(("parameter", "in", ""), parameters)
    for media_type, media in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body, {_code(media_type)}: {_type(media['schema'])}</p>"
        required = media["schema"].get("required", ())
        parts = [
            (_code(name), "required" if name in required else "", _type(schema), html.escape(schema["description"]))
            for name, schema in media["schema"].get("properties", {}).items()
            if "description" in schema
        ]
        if parts:
            yield _table(("part", "", "type", ""), parts)
    yield _table(("status", "", "body"), [
        (status, _marked(response["description"]), _bodies(response))
        for status, response in operation["responses"].items()
    ])  # fmt: skip


def _bodies(response: dict[str, Any]) -> str:
    return ", ".join(_type(media["schema"]) for media in response.get("content", {}).values())


def _type(schema: dict[str, Any]) -> str:
    if reference := schema.get("$ref", ""):
        name = html.escape(reference.removeprefix(SCHEMAS))
        return f'<a href="#schema-{name}">{name}</a>'
    if "allOf" in schema or "anyOf" in schema:
        return " or ".join(_type(part) for part in schema.get("allOf", [])[:1] + schema.get("anyOf", []))
    if "enum" in schema:
        return ", ".join(_code(str(value)) for value in schema["enum"])
    kinds = schema.get("type", "")
    return html.escape(kinds if isinstance(kinds, str) else " or ".join(kinds))


def _table(names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _prose(text: str) -> str:
    return "".join(f"<p>{_marked(paragraph)}</p>" for paragraph in text.strip().split("\n\n") if paragraph)


def _marked(text: str) -> str:
    """Escaped, and what stands in backticks as code."""
    parts = html.escape(text).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))


def _code(text: str) -> str:
    return f"<code>{html.escape(text)}</code>"


def _json(value: object) -> str:
    return f"<pre>{html.escape(msgspec.json.format(msgspec.json.encode(value)).decode())}</pre>"
