"""Of what another client has nothing can be told, whatever is asked; the endpoints are those that are routed."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from litestar.handlers import HTTPRouteHandler

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.identifiers import uuid7
from converter.gateway.app import PUBLIC

from .conftest import Form, GatewayProcess, function_fixture
from .finished import finish, promoting

pytestmark = pytest.mark.asyncio(loop_scope="module")

PARAMETER = re.compile(r"\{(\w+):\w+\}")
ABSENT = uuid7()


class Endpoint(NamedTuple):
    """A method and a path with an id in it."""

    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def routed(handlers: tuple[HTTPRouteHandler, ...] = PUBLIC) -> list[Endpoint]:
    """Every endpoint that names something; HEAD is served wherever GET is."""
    found = [
        Endpoint(method, path)
        for handler in handlers
        for path in sorted(handler.paths)
        for method in sorted(handler.http_methods)
        if PARAMETER.search(path)
    ]
    return found + [Endpoint("HEAD", path) for method, path in found if method == "GET"]


BY_JOB = [endpoint for endpoint in routed() if "{job_id" in endpoint.path]
BY_UPLOAD = [endpoint for endpoint in routed() if "{upload_id" in endpoint.path]
BY_LINK = [endpoint for endpoint in routed() if "/downloads/{" in endpoint.path]
BODIES: dict[str, dict[str, str]] = {"/promote": {"target_object_key": "a"}, "/download-tokens": {"source": "onnx"}}
"""What makes an order that its owner is granted, by the end of its path."""


class Theirs(NamedTuple):
    """A completed job with an artifact, its entity tag, and a whole upload, all of one client."""

    job_id: str
    etag: str
    upload_id: str


@function_fixture
async def theirs(gateway: GatewayProcess, shared_bus: Bus, storage_dir: Path, model: bytes) -> AsyncIterator[Theirs]:
    tus = {"Tus-Resumable": "1.0.0", "Upload-Length": str(len(model))}
    async with gateway.client() as owner:
        job_id = (await Form().post(owner, model, targets="onnx")).json()["job_id"]
        await finish(job_id, shared_bus, storage_dir)
        etag = (await owner.get(f"/api/v1/jobs/{job_id}")).headers["etag"]
        begun = await owner.post("/api/v1/uploads", headers=tus)
        async with promoting(job_id, shared_bus):
            yield Theirs(job_id, etag, begun.headers["location"].rpartition("/")[2])


def visible(answer: httpx.Response) -> tuple[int, list[tuple[str, str]], bytes]:
    """All that a client sees, except the time and the count of its own requests."""
    headers = [(name, value) for name, value in answer.headers.multi_items() if name != "date"]
    return answer.status_code, [pair for pair in headers if "ratelimit" not in pair[0]], answer.content


async def ask(client: httpx.AsyncClient, endpoint: Endpoint, of: str, headers: dict[str, str]) -> httpx.Response:
    path = PARAMETER.sub(of, endpoint.path)
    body = BODIES.get(path[path.rfind("/") :], {}) if endpoint.method == "POST" else None
    if endpoint.method == "PATCH":
        return await client.patch(path, content=b"x", headers=headers)
    return await client.request(endpoint.method, path, json=body, headers=headers)


async def test_every_endpoint_that_names_something_is_tried():
    """A new kind of id belongs into this module, or is a right by itself, as a download link is."""
    assert {*BY_JOB, *BY_UPLOAD, *BY_LINK} == {*routed()}
    assert len(BY_JOB) >= 12
    assert len(BY_UPLOAD) >= 4


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("endpoint", BY_JOB, ids=str)
async def test_another_clients_job_looks_like_none_in_every_byte(
    gateway: GatewayProcess, shared_bus: Bus, theirs: Theirs, model: bytes, endpoint: Endpoint, *, ended: bool
):
    async with gateway.client() as owner, gateway.client(client_id="other") as other:
        job_id = theirs.job_id if ended else (await Form().post(owner, model)).json()["job_id"]
        before = await JobLog(shared_bus, "test").read(job_id)
        same = {"X-Request-Id": "same", "Last-Event-ID": "0", "Range": "bytes=0-1"}
        for condition in ("If-Match", "If-None-Match"):
            headers = same | {condition: theirs.etag}
            foreign, absent = [await ask(other, endpoint, of, headers) for of in (job_id, ABSENT)]
            assert visible(foreign) == visible(absent)
            assert foreign.status_code == 404
        assert await JobLog(shared_bus, "test").read(job_id) == before
        if ended and not endpoint.path.endswith("/cancel"):
            granted = await ask(owner, endpoint, job_id, {"Last-Event-ID": "0"})
            assert granted.is_success, "what was asked is something that its owner gets"


@pytest.mark.parametrize("endpoint", [each for each in BY_JOB if each.method != "HEAD"], ids=str)
async def test_the_same_work_is_done_for_another_clients_job_as_for_none(
    gateway: GatewayProcess, shared_bus: Bus, theirs: Theirs, endpoint: Endpoint
):
    """How long a refusal takes tells nothing: both ask the event log's leader the same, and nothing else."""
    questions: list[str] = []

    async def hear(subject: str, payload: bytes) -> None:
        questions.append(f"{subject} {payload.decode()}")

    async with gateway.client() as owner, gateway.client(client_id="other") as other:
        await owner.get(f"/api/v1/jobs/{theirs.job_id}")  # it is in the gateway's copy now
        async with shared_bus.hear("$JS.API.>", hear):
            await shared_bus.last_sequence("EVENTS")  # the server listens from here on
            for of in (theirs.job_id, ABSENT):
                assert (await ask(other, endpoint, of, {})).status_code == 404
                await shared_bus.last_sequence("EVENTS")  # what was asked before has been heard
        asked = {of: [one.replace(of, "ID") for one in questions if of in one] for of in (theirs.job_id, ABSENT)}
    assert asked[theirs.job_id] == asked[ABSENT]
    assert asked[ABSENT]


@pytest.mark.parametrize("endpoint", BY_UPLOAD, ids=str)
async def test_another_clients_upload_looks_like_none_in_every_byte(
    gateway: GatewayProcess, theirs: Theirs, endpoint: Endpoint
):
    headers = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "X-Request-Id": "same"}
    headers["Content-Type"] = "application/offset+octet-stream"
    async with gateway.client() as owner, gateway.client(client_id="other") as other:
        foreign, absent = [await ask(other, endpoint, of, headers) for of in (theirs.upload_id, ABSENT)]
        assert visible(foreign) == visible(absent)
        assert foreign.status_code == (204 if endpoint.method == "OPTIONS" else 404)  # OPTIONS looks at no upload
        assert (await ask(owner, endpoint, theirs.upload_id, headers)).is_success


async def test_a_form_that_names_what_another_client_sent_is_refused_as_if_it_named_nothing(
    gateway: GatewayProcess, theirs: Theirs, model: bytes, form: Form
):
    sent = hashlib.sha256(model).hexdigest()
    for field, foreign, absent in (
        ("model_sha256", sent, hashlib.sha256(b"nobody has sent this").hexdigest()),
        ("model_upload_id", theirs.upload_id, ABSENT),
    ):
        async with gateway.client(client_id="other") as other:
            answers = [
                await other.post(
                    "/api/v1/jobs",
                    files=[(name, (None, value)) for name, value in form.fields(**{field: value_of}).items()],
                    headers={"X-Request-Id": "same"},
                )
                for value_of in (foreign, absent)
            ]
        assert visible(answers[0]) == visible(answers[1])
        assert answers[0].status_code == 400


async def test_a_cursor_is_of_no_use_to_another_client_user_or_filter(
    gateway: GatewayProcess, shared_bus: Bus, storage_dir: Path, model: bytes, form: Form
):
    async with gateway.client() as owner, gateway.client(client_id="other") as other:
        for _ in range(2):
            job_id = (await form.post(owner, model, targets="onnx")).json()["job_id"]
            await finish(job_id, shared_bus, storage_dir)

        async def listed(client: httpx.AsyncClient, **query: str) -> httpx.Response:
            return await client.get("/api/v1/jobs", params={"user_id": form.user_id, "limit": "1"} | query)

        cursor = (await listed(owner)).json()["next_cursor"]
        assert (await listed(owner, cursor=cursor)).is_success
        assert (await listed(other)).json() == {"items": [], "next_cursor": None}
        changed = cursor[:-1] + ("A" if cursor[-1] != "A" else "E")
        uses: list[tuple[httpx.AsyncClient, dict[str, Any]]] = [
            (other, {"cursor": cursor}),
            (owner, {"cursor": cursor, "user_id": "another"}),
            (owner, {"cursor": cursor, "status": "completed"}),
            (owner, {"cursor": changed}),
            (owner, {"cursor": f"{cursor}AAAA"}),
        ]
        for client, query in uses:
            answer = await listed(client, **query)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "validation_error")


async def test_an_idempotency_key_of_another_client_repeats_nothing_of_its_request(
    gateway: GatewayProcess, model: bytes
):
    async def posted(client: httpx.AsyncClient, form: Form) -> httpx.Response:
        files = {"model": ("m.onnx", model)}
        return await client.post("/api/v1/jobs", data=form.fields(), files=files, headers={"Idempotency-Key": "same"})

    form = Form()
    async with gateway.client(client_id="one") as one, gateway.client(client_id="two") as two:
        first, second = await asyncio.gather(posted(one, form), posted(two, form))
    assert first.status_code == second.status_code == 201
    assert first.json()["job_id"] != second.json()["job_id"]
