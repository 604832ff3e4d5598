"""Of another client's job nothing can be told, whatever is asked."""

from __future__ import annotations

import httpx
import jobs
import pytest

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.identifiers import uuid7
from converter.contracts.facts import JobCompleted
from converter.contracts.job import Stage

from .conftest import Form, GatewayProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENDPOINTS = [
    ("GET", ""),
    ("HEAD", ""),
    ("DELETE", ""),
    ("POST", "/cancel"),
    ("POST", "/promote"),
    ("POST", "/download-tokens"),
    ("GET", "/events"),
    ("GET", "/report"),
    ("GET", "/logs"),
    ("GET", "/logs?follow=true"),
]


def visible(answer: httpx.Response) -> tuple[int, list[tuple[str, str]], bytes]:
    """All that a client sees, except the time and the count of its own requests."""
    headers = [(name, value) for name, value in answer.headers.multi_items() if name != "date"]
    return answer.status_code, [pair for pair in headers if "ratelimit" not in pair[0]], answer.content


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
async def test_another_clients_job_looks_like_none_in_every_byte(
    gateway: GatewayProcess, shared_bus: Bus, model: bytes, method: str, path: str, *, ended: bool
):
    async with gateway.client() as owner, gateway.client(client_id="other") as other:
        job_id = (await Form().post(owner, model, targets="onnx")).json()["job_id"]
        job_log = JobLog(shared_bus, "test")
        if ended:
            for fact in (jobs.started(Stage.ONNX), jobs.completed(Stage.ONNX), JobCompleted(at=jobs.AT)):
                await job_log.append(job_id, lambda _, fact=fact: fact)  # type: ignore[misc]  # a default for mypy
        before = await job_log.read(job_id)
        body = {"target_object_key": "a"} if path == "/promote" else {} if method == "POST" else None
        headers = {"X-Request-Id": "same", "If-Match": '"x"', "Last-Event-ID": "99", "Range": "bytes=0-1"}
        foreign, absent = [
            await other.request(method, f"/api/v1/jobs/{id_}{path}", json=body, headers=headers)
            for id_ in (job_id, uuid7())
        ]
        assert visible(foreign) == visible(absent)
        assert foreign.status_code == 404
        assert await job_log.read(job_id) == before
