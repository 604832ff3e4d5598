"""The conversion report: what each stage found out about the model, put together from the stages' own.

JSON for programs, a page for people, by the request's `Accept`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import msgspec
import structlog
from litestar import Response, get
from litestar.datastructures.headers import Accept
from litestar.enums import MediaType
from msgspec.structs import replace

from converter.contracts.job import JobRecord, Stage, StoredObject
from converter.contracts.report import BieReport, NefReport, OnnxReport, Report, StageReports
from converter.gateway.endpoints.jobs import ApiRequest, own_job, shown_job
from converter.gateway.gateway import Gateway
from converter.gateway.http.answers import etag, etag_of, not_modified
from converter.gateway.http.headers import combined
from converter.gateway.http.streaming import Streamed, opened
from converter.gateway.openapi.documentation import IF_NONE_MATCH, NOT_MODIFIED, Answer, Operation
from converter.gateway.report import page
from converter.gateway.representation import job_resource

log = structlog.get_logger()

MOST_BYTES_ON_A_PAGE = 4 << 20
"""Of one stage's report: what is larger has names without end, and is given as JSON alone."""
Opening = Callable[[StoredObject], AbstractAsyncContextManager[AsyncGenerator[bytes, None]]]
"""Opens the stored report of a stage."""
_SHAPES: dict[Stage, Any] = {Stage.ONNX: OnnxReport, Stage.BIE: BieReport, Stage.NEF: NefReport}
_CACHED = {"Cache-Control": "private, no-cache", "Vary": "Accept"}
_KINDS = (MediaType.JSON.value, MediaType.HTML.value)

_REPORT = Operation(
    parameters=(IF_NONE_MATCH,),
    answers={
        200: Answer("The reports of the stages that have finished.", Report, ("Vary",), _KINDS),
        304: replace(NOT_MODIFIED, headers=(*NOT_MODIFIED.headers, "Vary")),
    },
    refusals=("storage_unavailable",),
    tag="artifacts",
)


@get("/api/v1/jobs/{job_id:str}/report", opt={"requires": "read", "operation": _REPORT}, media_type=MediaType.JSON)
async def get_report(request: ApiRequest, gateway: Gateway, job_id: str) -> Response[bytes]:
    """The reports of every stage that has finished, each as it was stored.

    With `Accept: text/html` they are one page for people, which needs nothing else and runs no script.
    """
    caller = request.user
    record = await shown_job(gateway, caller, job_id)

    def opening(report: StoredObject) -> AbstractAsyncContextManager[AsyncGenerator[bytes, None]]:
        return opened(gateway.store, report, lambda: own_job(gateway, caller, job_id))

    accept = Accept(combined(request.scope["headers"], b"accept") or "*/*")
    if_none_match = combined(request.scope["headers"], b"if-none-match")
    if accept.best_match(list(_KINDS)) == MediaType.HTML:
        return await _page(record, opening, if_none_match)
    return _document(record, opening, if_none_match)


def _reports(record: JobRecord) -> dict[Stage, StoredObject]:
    return {stage: state.report for stage, state in record.stages.items() if state.report}


def _document(record: JobRecord, opening: Opening, if_none_match: str | None) -> Response[bytes]:
    """`{"job_id": "…", "stages": {"onnx": {…}, …}}`, in constant memory."""
    reports = _reports(record)
    tag = etag_of({stage: report.sha256 for stage, report in reports.items()})
    headers = {"ETag": tag, **_CACHED}
    if not_modified(if_none_match, tag):
        return Response(b"", status_code=304, headers=headers)

    @asynccontextmanager
    async def body() -> AsyncIterator[AsyncGenerator[bytes, None]]:
        # All are opened before the first byte is sent: what cannot be read is told by the status.
        async with AsyncExitStack() as stack:
            parts = {stage: await stack.enter_async_context(opening(report)) for stage, report in reports.items()}
            yield await stack.enter_async_context(aclosing(_assembled(record.job_id, parts)))

    headers |= {"Content-Type": MediaType.JSON.value, "Content-Length": str(_size_bytes(record.job_id, reports))}
    return Streamed(body, headers=headers)


async def _page(record: JobRecord, opening: Opening, if_none_match: str | None) -> Response[bytes]:
    reports, unread = await _read(record, opening)
    rendered = await asyncio.to_thread(page.render, job_resource(record, None), reports, unread)
    content = rendered.encode()
    headers = {"ETag": etag(content), **_CACHED, "Content-Security-Policy": page.POLICY}
    if not_modified(if_none_match, headers["ETag"]):
        return Response(b"", status_code=304, headers=headers)
    return Response(content, media_type=MediaType.HTML, headers=headers)


async def _read(record: JobRecord, opening: Opening) -> tuple[StageReports, dict[Stage, str]]:
    """The reports for the page and, by stage, why one cannot be shown."""
    found: dict[str, Any] = {}
    unread: dict[Stage, str] = {}
    for stage, report in _reports(record).items():
        if report.size_bytes > MOST_BYTES_ON_A_PAGE:
            unread[stage] = f"it has {report.size_bytes} bytes. Ask for it as JSON."
            continue
        async with opening(report) as chunks:
            content = b"".join([chunk async for chunk in chunks])
        try:
            found[stage] = msgspec.json.decode(content, type=_SHAPES[stage])
        except msgspec.DecodeError as error:
            log.warning("report.of_another_shape", job_id=record.job_id, stage=stage, error=str(error))
            unread[stage] = "it was written by another release. Ask for it as JSON."
    return StageReports(**found), unread


async def _assembled(job_id: str, parts: dict[Stage, AsyncGenerator[bytes, None]]) -> AsyncGenerator[bytes, None]:
    yield _head(job_id)
    for number, (stage, chunks) in enumerate(parts.items()):
        yield _key(number, stage)
        async for chunk in chunks:
            yield chunk
    yield _TAIL


_TAIL = b"}}"


def _head(job_id: str) -> bytes:
    return b'{"job_id":%s,"stages":{' % msgspec.json.encode(job_id)


def _key(number: int, stage: Stage) -> bytes:
    return b'%s"%s":' % (b"," if number else b"", stage.value.encode())


def _size_bytes(job_id: str, reports: dict[Stage, StoredObject]) -> int:
    keys = sum(len(_key(number, stage)) for number, stage in enumerate(reports))
    return len(_head(job_id)) + keys + sum(report.size_bytes for report in reports.values()) + len(_TAIL)
