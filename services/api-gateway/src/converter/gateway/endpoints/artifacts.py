"""An artifact as an answer: whole or in part, under its own name."""

from __future__ import annotations

import base64

from litestar import Response

from converter.common.storage import ArtifactStore
from converter.contracts.job import Artifact
from converter.gateway.endpoints.jobs import ApiRequest
from converter.gateway.http.answers import matches, not_modified
from converter.gateway.http.errors import Refusal
from converter.gateway.http.headers import combined
from converter.gateway.http.ranges import Unsatisfiable, attachment, wanted_range
from converter.gateway.http.streaming import Recheck, Streamed, opened


def artifact_answer(request: ApiRequest, store: ArtifactStore, artifact: Artifact, recheck: Recheck) -> Response[bytes]:
    """The bytes of `artifact` as the request wants them: its conditions and, of GET, its `Range` are honoured.

    The entity tag is the artifact's sha256. `recheck` is asked when the object is not there.

    Raises:
        Refusal: `precondition_failed` or `range_not_satisfiable`.
    """
    tag = f'"{artifact.sha256}"'
    digest = base64.b64encode(bytes.fromhex(artifact.sha256)).decode()
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Accept-Ranges": "bytes"}
    if_match = combined(request.scope["headers"], b"if-match")
    if if_match is not None and not matches(if_match, tag):
        raise Refusal("precondition_failed", headers={"ETag": tag})
    if not_modified(combined(request.scope["headers"], b"if-none-match"), tag):
        return Response(b"", status_code=304, headers=headers)
    size_bytes = artifact.size_bytes
    # A range is a part of GET's body; HEAD tells of the whole (RFC 9110 section 14.2).
    wanted = None if request.scope["state"].get("head") else request.headers.get("range")
    try:
        part = wanted_range(wanted, request.headers.get("if-range"), tag=tag, size_bytes=size_bytes)
    except Unsatisfiable:
        raise Refusal(
            "range_not_satisfiable",
            details={"size_bytes": size_bytes},
            headers={"Content-Range": f"bytes */{size_bytes}"},
        ) from None
    headers |= {
        "Content-Type": artifact.media_type,
        "Content-Disposition": attachment(artifact.filename),
        "Repr-Digest": f"sha-256=:{digest}:",
    }
    if part is None:
        headers["Content-Length"] = str(size_bytes)
    else:
        headers["Content-Range"] = f"bytes {part.first}-{part.last}/{size_bytes}"
        headers["Content-Length"] = str((part.last or 0) - part.first + 1)
    return Streamed(lambda: opened(store, artifact, recheck, part), status_code=206 if part else 200, headers=headers)
