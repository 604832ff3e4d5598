"""Resumable uploads over HTTP: tus 1.0.0 (https://tus.io/protocols/resumable-upload).

Core, and the extensions creation, termination, expiration and checksum. A finished upload is named by the field
`model_upload_id` of a new job.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from email.utils import format_datetime

from litestar import Response, delete, get, patch, post, route
from litestar.enums import MediaType
from litestar.types import ASGIApp, Receive, Scope, Send
from msgspec import Struct

from converter.contracts.job import Timestamp, timestamp
from converter.gateway.endpoints.jobs import ApiRequest
from converter.gateway.endpoints.tus_headers import ALGORITHMS, checksum_in, filename_in, number_in
from converter.gateway.gateway import Gateway
from converter.gateway.http.answers import json_answer
from converter.gateway.http.body import chunks
from converter.gateway.http.errors import FieldError, Refusal, bad_fields
from converter.gateway.http.headers import combined
from converter.gateway.http.middleware import add_to_answer
from converter.gateway.intake.references import too_large
from converter.gateway.openapi.documentation import Answer, Body, Operation, Parameter
from converter.gateway.uploads import (
    ChecksumMismatch,
    OffsetConflict,
    QuotaReached,
    Upload,
    UploadNotFound,
    UploadTooLong,
)

VERSION = "1.0.0"
EXTENSIONS = "creation,termination,expiration,checksum"
PATCH_TYPE = "application/offset+octet-stream"
_ROOT, _ONE = "/api/v1/uploads", "/api/v1/uploads/{upload_id:str}"
_UPLOAD_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_COUNT = {"type": "integer", "minimum": 0}
_TUS = Parameter("Tus-Resumable", {"type": "string", "enum": [VERSION]}, "The protocol.", "header", required=True)
_SHOWN = ("Upload-Offset", "Upload-Length", "Upload-Metadata", "Upload-Expires")
_CAPABILITIES = (
    "Allow",
    "Cache-Control",
    "Tus-Resumable",
    "Tus-Version",
    "Tus-Extension",
    "Tus-Max-Size",
    "Tus-Checksum-Algorithm",
)
_OTHER_VERSION: dict[str, tuple[str, ...]] = {"precondition_failed": ("Tus-Version",)}


class UploadResource(Struct, frozen=True, kw_only=True):
    """An upload, and how much of it has arrived."""

    upload_id: str
    filename: str
    offset_bytes: int
    size_bytes: int
    expires_at: Timestamp


class NamedProtocol:
    """Has every answer to a request for uploads name the protocol, whoever gives it (tus 1.0.0, core).

    Args:
        app: serves them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["path"] == _ROOT or scope["path"].startswith(f"{_ROOT}/"):
            add_to_answer(scope, [(b"tus-resumable", VERSION.encode())])
        await self._app(scope, receive, send)


_DESCRIBE = {
    "requires": None,
    "operation": Operation(answers={204: Answer("What this server can do.", headers=_CAPABILITIES)}, tag="uploads"),
}


@route([_ROOT], http_method=["OPTIONS"], opt=_DESCRIBE, status_code=204)
async def describe_uploads(gateway: Gateway) -> Response[None]:
    """What this server can do of the tus protocol."""
    return _described(gateway)


@route([_ONE], http_method=["OPTIONS"], opt=_DESCRIBE, status_code=204)
async def describe_upload(gateway: Gateway) -> Response[None]:
    """What this server can do of the tus protocol, whichever upload it is asked of."""
    return _described(gateway)


def _described(gateway: Gateway) -> Response[None]:
    headers = {
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(gateway.limits.model_max_bytes),
        "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
    }
    return Response(None, status_code=204, headers=headers)


@post(
    _ROOT,
    opt={
        "requires": "write",
        "operation": Operation(
            answers={201: Answer("The upload; send its bytes to Location.", headers=("Location", "Upload-Expires"))},
            refusals=(
                "precondition_failed",
                "validation_error",
                "file_too_large",
                "storage_unavailable",
                "storage_full",
            ),
            parameters=(
                _TUS,
                Parameter("Upload-Length", _COUNT, "Bytes that the model has.", "header", required=True),
                Parameter("Upload-Metadata", {"type": "string"}, "`filename <base64>`; ends with .onnx.", "header"),
            ),
            headers=("Tus-Resumable",),
            refused_with=_OTHER_VERSION,
            tag="uploads",
        ),
    },
    media_type=MediaType.TEXT,
)
async def create_upload(request: ApiRequest, gateway: Gateway) -> Response[bytes]:
    """Begin a resumable upload of a model."""
    _speak_tus(request)
    problems: list[FieldError] = []
    size_bytes = number_in(request, "Upload-Length", problems)
    metadata = combined(request.scope["headers"], b"upload-metadata") or ""
    filename = filename_in(metadata, problems)
    if problems:
        raise bad_fields(problems)
    if size_bytes > gateway.limits.model_max_bytes:
        raise too_large("model", gateway.limits.model_max_bytes)
    try:
        upload = await gateway.uploads.create(request.user.client_id, size_bytes, filename, metadata)
    except QuotaReached as reached:
        raise _too_many(reached, gateway.upload_slots.retry_after_s) from None
    headers = {"Location": f"{_ROOT}/{upload.upload_id}", **_expiry(gateway, upload)}
    return Response(b"", status_code=201, headers=headers)


@get(
    _ONE,
    opt={
        "requires": "write",
        "operation": Operation(
            answers={200: Answer("How much has arrived.", UploadResource, headers=_SHOWN)},
            refusals=("precondition_failed", "upload_not_found", "storage_unavailable"),
            parameters=(_TUS,),
            headers=("Tus-Resumable",),
            refused_with=_OTHER_VERSION,
            tag="uploads",
        ),
    },
    media_type=MediaType.JSON,
)
async def get_upload(request: ApiRequest, gateway: Gateway, upload_id: str) -> Response[bytes]:
    """How much of an upload has arrived; HEAD is what tus asks with."""
    _speak_tus(request)
    upload = await _own_upload(request, gateway, upload_id)
    offset = await gateway.uploads.offset(upload)
    resource = UploadResource(
        upload_id=upload.upload_id,
        filename=upload.filename,
        offset_bytes=offset,
        size_bytes=upload.size_bytes,
        expires_at=timestamp(gateway.uploads.expires_at(upload)),
    )
    headers = {
        "Cache-Control": "no-store",
        "Upload-Offset": str(offset),
        "Upload-Length": str(upload.size_bytes),
        **({"Upload-Metadata": upload.metadata} if upload.metadata else {}),
        **_expiry(gateway, upload),
    }
    return json_answer(resource, headers=headers)


@patch(
    _ONE,
    opt={
        "requires": "write",
        "operation": Operation(
            body=Body({"type": "string", "format": "binary"}, PATCH_TYPE),
            answers={204: Answer("They are stored.", headers=("Upload-Offset", "Upload-Expires"))},
            refusals=(
                "precondition_failed",
                "upload_not_found",
                "upload_offset_mismatch",
                "file_too_large",
                "checksum_mismatch",
                "storage_unavailable",
                "storage_full",
                "service_busy",
            ),
            parameters=(
                _TUS,
                Parameter("Upload-Offset", _COUNT, "Where these bytes begin.", "header", required=True),
                Parameter("Upload-Checksum", {"type": "string"}, "`sha256 <base64>` of these bytes.", "header"),
            ),
            headers=("Tus-Resumable",),
            refused_with=_OTHER_VERSION,
            tag="uploads",
        ),
    },
    status_code=204,
)
async def append_to_upload(request: ApiRequest, gateway: Gateway, upload_id: str) -> Response[None]:
    """Continue an upload. What arrives before a connection breaks is kept, unless the bytes carry a checksum."""
    _speak_tus(request)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != PATCH_TYPE:
        raise Refusal("unsupported_media_type", details={"hint": f"Send {PATCH_TYPE}."})
    problems: list[FieldError] = []
    offset, checksum = number_in(request, "Upload-Offset", problems), checksum_in(request, problems)
    if problems:
        raise bad_fields(problems)
    announced_bytes = int(request.headers.get("content-length", "0"))
    upload = await _own_upload(request, gateway, upload_id)
    with gateway.upload_slots.taken(), _refused(upload):
        async with aclosing(chunks(request.receive, limit_bytes=upload.size_bytes, pace=gateway.pace)) as body:
            if checksum is None:
                offset = await gateway.uploads.append(upload, offset, body, announced_bytes)
            else:
                offset = await gateway.uploads.append_verified(upload, offset, body, announced_bytes, checksum)
    return Response(None, status_code=204, headers={"Upload-Offset": str(offset), **_expiry(gateway, upload)})


@delete(
    _ONE,
    opt={
        "requires": "write",
        "operation": Operation(
            answers={204: Answer("It is gone.")},
            refusals=("precondition_failed", "upload_not_found", "storage_unavailable"),
            parameters=(_TUS,),
            headers=("Tus-Resumable",),
            refused_with=_OTHER_VERSION,
            tag="uploads",
        ),
    },
)
async def remove_upload(request: ApiRequest, gateway: Gateway, upload_id: str) -> Response[None]:
    """End an upload and remove what has arrived of it."""
    _speak_tus(request)
    await gateway.uploads.remove(await _own_upload(request, gateway, upload_id))
    return Response(None, status_code=204)


UPLOADS = (describe_uploads, describe_upload, create_upload, get_upload, append_to_upload, remove_upload)


def _speak_tus(request: ApiRequest) -> None:
    """A client of another version is told so."""
    if request.headers.get("tus-resumable") != VERSION:
        raise Refusal(
            "precondition_failed",
            f"Tus-Resumable is missing or another version; this is {VERSION}.",
            details={"hint": f"Send Tus-Resumable: {VERSION}."},
            headers={"Tus-Version": VERSION},
        )


async def _own_upload(request: ApiRequest, gateway: Gateway, upload_id: str) -> Upload:
    if not _UPLOAD_ID.fullmatch(upload_id):
        raise Refusal("upload_not_found")
    try:
        return await gateway.uploads.find(request.user.client_id, upload_id)
    except UploadNotFound:
        raise Refusal("upload_not_found") from None


@contextmanager
def _refused(upload: Upload) -> Iterator[None]:
    try:
        yield
    except OffsetConflict:
        raise Refusal("upload_offset_mismatch") from None
    except UploadTooLong:
        raise _too_long(upload) from None
    except ChecksumMismatch:
        raise Refusal("checksum_mismatch") from None


def _too_long(upload: Upload) -> Refusal:
    details = {"limit_bytes": upload.size_bytes}
    return Refusal("file_too_large", "These are more bytes than Upload-Length announced.", details=details)


def _too_many(reached: QuotaReached, retry_after_s: int) -> Refusal:
    return Refusal(
        "rate_limit_exceeded",
        "The client's resumable uploads leave no room for this one.",
        details={
            "hint": "Have a job use one of them, or DELETE it; each goes by itself at its Upload-Expires.",
            "open_uploads": reached.count,
            "open_uploads_limit": reached.quota.count,
            "open_uploads_bytes": reached.size_bytes,
            "open_uploads_limit_bytes": reached.quota.size_bytes,
        },
        headers={"Retry-After": str(retry_after_s)},
    )


def _expiry(gateway: Gateway, upload: Upload) -> dict[str, str]:
    return {"Upload-Expires": format_datetime(gateway.uploads.expires_at(upload), usegmt=True)}
