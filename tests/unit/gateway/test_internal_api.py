from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from litestar.handlers import HTTPRouteHandler

from converter.contracts.job import JobStatus, Stage
from converter.gateway.app import INTERNAL
from converter.gateway.http.errors import ERRORS, Refusal
from converter.gateway.internal.guard import SameSite, host_name
from converter.gateway.internal.operators import StageOrEnd

DESCRIBED = (Path(__file__).parents[3] / "docs" / "internal-api.md").read_text()


@pytest.mark.parametrize("handler", INTERNAL, ids=lambda handler: handler.handler_name)
def test_every_internal_route_is_described(handler: HTTPRouteHandler):
    (path,) = handler.paths
    (method,) = handler.http_methods
    shown = re.escape(f"`{re.sub(r':[a-z]+}', '}', path)}`")
    assert re.search(rf"^\| {method} \|[^|]*{shown}[^|]*\|", DESCRIBED, re.MULTILINE)


def test_every_internal_code_is_described():
    for code, row in ERRORS.items():
        assert (f"| {row.status} | `{code}` |" in DESCRIBED) == row.internal


@pytest.mark.parametrize(
    ("status", "stage", "word"),
    [
        (JobStatus.QUEUED, Stage.ONNX, "ONNX"),
        (JobStatus.RUNNING, Stage.BIE, "BIE"),
        (JobStatus.QUEUED, Stage.NEF, "NEF"),
        (JobStatus.COMPLETED, None, "COMPLETED"),
        (JobStatus.FAILED, Stage.BIE, "FAILED"),
        (JobStatus.CANCELLED, Stage.NEF, "CANCELLED"),
    ],
)
def test_the_older_word_is_the_stage_or_how_it_ended(status: JobStatus, stage: Stage | None, word: str):
    assert StageOrEnd.of(status, stage) == word


@pytest.mark.parametrize(
    ("host", "refused"),
    [("10.1.2.3:4001", False), ("10.1.2.3", False), ("10.1.2.4", True), ("10.1.2.3.evil.example", True), ("", True)],
)
async def test_the_address_that_a_request_came_to_is_known(host: str, refused: bool):  # noqa: FBT001 - a parameter
    served = []

    async def app(scope: object, receive: object, send: object) -> None:
        served.append(scope)

    async def nothing(*_: object) -> None:
        raise AssertionError

    scope: Any = {"method": "GET", "headers": [(b"host", host.encode())], "server": ("10.1.2.3", 4001)}
    guard = SameSite(app, ())
    if refused:
        with pytest.raises(Refusal, match="unknown_host"):
            await guard(scope, nothing, nothing)
    else:
        await guard(scope, nothing, nothing)
    assert bool(served) != refused


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("Example.com:80", "example.com"),
        ("example.com.", "example.com"),
        ("[::1]:4001", "::1"),
        ("[::1", "::1"),
        ("", ""),
        (":80", ""),
        ("user@127.0.0.1", "user@127.0.0.1"),
    ],
)
def test_a_host_is_its_name(header: str, name: str):
    assert host_name(header) == name
