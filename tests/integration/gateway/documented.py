"""Holds an answer of the public face against its document: the status, the headers and the media type stand there."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

import httpx

from converter.gateway.app import PUBLIC
from converter.gateway.http.headers import hardening
from converter.gateway.openapi.document import document
from converter.gateway.openapi.faces import Security, public_face

_DESCRIBED = {
    re.compile(re.sub(r"\{\w+\}", "[^/]+", path)): operations
    for path, operations in document(PUBLIC, public_face(Security()))["paths"].items()
}
_OF_HTTP = {"date", "connection", "transfer-encoding", "content-length", "content-type", "x-accel-buffering"}
_OF_ALL = _OF_HTTP | {name.decode() for name, _ in hardening(secure=True)}
_WRONG_METHOD = 405


async def documented(answer: httpx.Response) -> None:
    """Look at what the document has of the operation; what it does not describe, as HEAD of a stream, is let pass."""
    asked = answer.request
    operation = next((item for path, item in _DESCRIBED.items() if path.fullmatch(asked.url.path)), {}).get(
        asked.method.lower()
    )
    if operation is None or answer.status_code == _WRONG_METHOD:
        return
    about = f"{answer.status_code} of {operation['operationId']}"
    response = operation["responses"].get(str(answer.status_code))
    assert response is not None, f"{about} is not documented"
    undocumented = set(answer.headers) - _OF_ALL - {name.lower() for name in response["headers"]}
    assert not undocumented, f"{about} has headers that are not documented: {undocumented}"
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if kind and asked.method != "HEAD" and answer.headers.get("content-length") != "0":
        known = response.get("content", {})
        assert any(fnmatchcase(kind, each) for each in known), f"{about} is {kind}, which is not documented"
