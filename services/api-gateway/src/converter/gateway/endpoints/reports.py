"""The conversion report: what each stage found out about the model, put together from the stages' own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import msgspec
from litestar import Response, get
from litestar.enums import MediaType

from converter.contracts.job import Stage, StoredObject
from converter.gateway.endpoints.jobs import ApiRequest, own_job
from converter.gateway.gateway import Gateway
from converter.gateway.http.answers import etag_of, none_match
from converter.gateway.http.streaming import Streamed, opened
from converter.gateway.openapi.documentation import IF_NONE_MATCH, NOT_MODIFIED, Answer, Operation

_REPORT = Operation(
    parameters=(IF_NONE_MATCH,),
    answers={
        200: Answer(
            "The reports of the stages that have finished.",
            {
                "type": "object",
                "required": ["job_id", "stages"],
                "properties": {
                    "job_id": {"type": "string"},
                    "stages": {"type": "object", "additionalProperties": {"type": "object"}},
                },
            },
            headers=("ETag",),
        ),
        304: NOT_MODIFIED,
    },
    refusals=("storage_unavailable",),
    tag="artifacts",
)


@get("/api/v1/jobs/{job_id:str}/report", opt={"requires": "read", "operation": _REPORT}, media_type=MediaType.JSON)
async def get_report(request: ApiRequest, gateway: Gateway, job_id: str) -> Response[bytes]:
    """`{"job_id": "…", "stages": {"onnx": {…}, …}}` with every stage that has finished, each as it was stored."""
    client_id = request.user.client_id
    record = await own_job(gateway, client_id, job_id)
    reports = {stage: state.report for stage, state in record.stages.items() if state.report}
    tag = etag_of({stage: report.sha256 for stage, report in reports.items()})
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    condition = request.headers.get("if-none-match")
    if condition is not None and not none_match(condition, tag):
        return Response(b"", status_code=304, headers=headers)

    @asynccontextmanager
    async def body() -> AsyncIterator[AsyncGenerator[bytes, None]]:
        # All are opened before the first byte is sent: what cannot be read is told by the status.
        async with AsyncExitStack() as stack:
            parts = {
                stage: await stack.enter_async_context(
                    opened(gateway.store, report, lambda: own_job(gateway, client_id, job_id))
                )
                for stage, report in reports.items()
            }
            yield await stack.enter_async_context(aclosing(_assembled(job_id, parts)))

    headers |= {"Content-Type": MediaType.JSON.value, "Content-Length": str(_size_bytes(job_id, reports))}
    return Streamed(body, headers=headers)


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
