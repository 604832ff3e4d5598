"""The internal listener: what it serves, in which envelope, and to whom it does not."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest
from jsonschema_rs import Draft202012Validator
from litestar.handlers import HTTPRouteHandler

from converter.gateway import app
from converter.gateway.internal.guard import SAFE_METHODS

from .conftest import Form, GatewayProcess, StartGateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

ABSENT = "0199c1f2-0000-7000-8000-000000000001"
OF_BOTH = {path for handler in app.OF_BOTH for path in handler.paths}
PARAMETER = re.compile(r"\{\w+:\w+\}")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def routed(handlers: tuple[HTTPRouteHandler, ...]) -> list[str]:
    """Every path that a face serves and the other has no reason to."""
    paths = {path for handler in handlers for path in handler.paths} - OF_BOTH
    return sorted(PARAMETER.sub(ABSENT, path) for path in paths)


CHANGES = sorted(
    (method, PARAMETER.sub(ABSENT, path))
    for handler in app.INTERNAL
    for path in handler.paths
    for method in handler.http_methods
    if method not in SAFE_METHODS
)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


@pytest.mark.parametrize("path", routed(app.INTERNAL))
async def test_the_public_listener_serves_nothing_internal(gateway: GatewayProcess, path: str):
    port = gateway.internal_url.rpartition(":")[2]
    pretended = {"Host": f"127.0.0.1:{port}", "X-Original-URL": path, "X-Forwarded-Host": "localhost"}
    async with gateway.client() as client:
        for where in (path, f"/api/v1/..{path}", f"/api/v1/%2e%2e{path}", f"/{path}"):
            for method in METHODS:
                answer = await client.request(method, where, headers=pretended)
                assert answer.status_code == 404, f"{method} {where}"
                assert method == "HEAD" or answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("path", routed(app.PUBLIC))
async def test_the_internal_listener_serves_nothing_public(gateway: GatewayProcess, path: str):
    async with gateway.operators() as operators:
        answer = await operators.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_no_endpoint_that_changes_something_takes_it_from_another_site_or_name(
    gateway: GatewayProcess, method: str, path: str
):
    overrides = {"X-HTTP-Method-Override": "GET", "X-Forwarded-Host": "localhost"}
    async with gateway.operators() as operators:
        for headers, status, code in (
            ({"Origin": "http://evil.example"}, 403, "cross_site_request"),
            ({"Sec-Fetch-Site": "cross-site"}, 403, "cross_site_request"),
            ({"Host": "evil.example"}, 421, "unknown_host"),
        ):
            answer = await operators.request(method, path, headers=overrides | headers)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
            assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", routed(app.INTERNAL))
async def test_no_answer_can_be_framed_or_read_by_another_site(gateway: GatewayProcess, path: str):
    async with gateway.operators() as operators:
        for request in (
            operators.build_request("GET", path, headers={"Origin": "http://evil.example"}),
            operators.build_request("GET", path, headers={"Host": "evil.example"}),
        ):
            answer = await operators.send(request, stream=True)
            await answer.aclose()
            assert answer.headers["x-frame-options"] == "DENY"
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"/jobs/{ABSENT}", 404, "job_not_found"),
        ("GET", "/jobs/no-id", 404, "job_not_found"),
        ("GET", f"/jobs/{ABSENT}/download/x", 404, "job_not_found"),
        ("POST", f"/jobs/{ABSENT}/cancel", 404, "job_not_found"),
        ("POST", f"/jobs/{ABSENT}/retry", 404, "job_not_found"),
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/assets/nothing.js", 404, "not_found"),
        ("GET", "/assets/../index.html", 404, "not_found"),
        ("PUT", "/jobs", 405, "method_not_allowed"),
        ("POST", "/jobs", 415, "unsupported_media_type"),
        ("GET", "/jobs?limit=0&status=x&platform=1&cursor=y&colour=z", 400, "validation_error"),
    ],
)
async def test_every_refusal_comes_in_the_older_envelope(
    gateway: GatewayProcess, method: str, path: str, status: int, code: str
):
    async with gateway.operators() as operators:
        answer = await operators.request(method, path)
    assert answer.status_code == status
    assert list(answer.json()) == ["error", "code", "details"]
    assert answer.json()["code"] == code
    assert answer.json()["error"]
    assert answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_what_is_no_http_is_refused_in_the_older_envelope_too(gateway: GatewayProcess):
    port = int(gateway.internal_url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"nonsense\r\n\r\n")
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    assert b'{"error":' in answer
    assert b'"code":"validation_error"' in answer


async def test_what_is_answered_fits_the_document_of_this_face(gateway: GatewayProcess, model: bytes):
    fields = Form().fields()
    del fields["user_id"]
    async with gateway.operators() as operators:
        described = (await operators.get("/openapi")).json()
        posted = await operators.post("/jobs", data=fields, files={"model": ("m.onnx", model)})
        path = f"/jobs/{posted.json()['job_id']}"
        answers = {
            ("/jobs", "post"): posted,
            ("/jobs", "get"): await operators.get("/jobs"),
            ("/jobs/{job_id}", "get"): await operators.get(path),
            ("/queues/stats", "get"): await operators.get("/queues/stats"),
            ("/jobs/{job_id}/cancel", "post"): await operators.post(f"{path}/cancel"),
            ("/jobs/{job_id}", "delete"): await operators.delete("/jobs/no-id"),
            ("/jobs/{job_id}/retry", "post"): await operators.post(f"{path}/retry", json={"platform": "x"}),
        }
    for (template, method), answer in answers.items():
        response = described["paths"][template][method]["responses"][str(answer.status_code)]
        schema = response["content"]["application/json"]["schema"]
        Draft202012Validator(schema | {"components": described["components"]}).validate(answer.json())
    assert [answer.status_code for answer in answers.values()] == [201, 200, 200, 200, 202, 404, 400]


async def test_every_bad_parameter_of_a_list_is_named(gateway: GatewayProcess):
    async with gateway.operators() as operators:
        answer = await operators.get("/jobs?limit=101&status=x&platform=1&cursor=y&colour=z")
    fields = [problem["field"] for problem in answer.json()["details"]["fields"]]
    assert sorted(fields) == ["colour", "cursor", "limit", "platform", "status"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:4001", "127.0.0.1.evil.example", "10.0.0.1", "", "[::"])
async def test_a_name_that_is_not_known_here_is_answered_nothing(gateway: GatewayProcess, host: str):
    async with gateway.operators() as operators:
        for path in ("/", "/jobs", "/health", "/nothing"):
            answer = await operators.get(path, headers={"Host": host})
            assert (answer.status_code, answer.json()["code"]) == (421, "unknown_host")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:4001", "127.0.0.1", "127.8.8.8:1", "[::1]:4001", "localhost."]
)
async def test_loopback_is_known_by_every_name(gateway: GatewayProcess, host: str):
    async with gateway.operators() as operators:
        assert (await operators.get("/health/live", headers={"Host": host})).status_code == 200


async def test_other_names_are_known_where_they_are_allowed(start_gateway: StartGateway):
    gateway = await start_gateway(INTERNAL_ALLOWED_HOSTS="converter.internal, Ops.example")
    async with gateway.operators() as operators:
        found = [
            (await operators.get("/health/live", headers={"Host": host})).status_code
            for host in ("converter.internal", "ops.example:8443", "other.example", "127.0.0.1")
        ]
    assert found == [200, 200, 421, 200]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:9999"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "{own}"},
    ],
)
async def test_another_sites_page_changes_nothing(gateway: GatewayProcess, headers: dict[str, str], model: bytes):
    sent = {name: value.format(own=gateway.internal_url) for name, value in headers.items()}
    fields = Form().fields()
    del fields["user_id"]
    async with gateway.operators() as operators:
        posted = await operators.post("/jobs", data=fields, files={"model": ("m.onnx", model)})
        path = f"/jobs/{posted.json()['job_id']}"
        for method, target in (
            ("POST", "/jobs"),
            ("POST", f"{path}/cancel"),
            ("DELETE", path),
            ("POST", f"{path}/retry"),
        ):
            answer = await operators.request(method, target, headers=sent)
            assert (answer.status_code, answer.json()["code"]) == (403, "cross_site_request")
        assert (await operators.get(path, headers=sent)).json()["v1_status"] == "queued"


@pytest.mark.parametrize("headers", [{"Origin": "{own}", "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}])
async def test_the_own_page_may_change_things(gateway: GatewayProcess, headers: dict[str, str], model: bytes):
    sent = {name: value.format(own=gateway.internal_url) for name, value in headers.items()}
    fields = Form().fields()
    del fields["user_id"]
    async with gateway.operators() as operators:
        posted = await operators.post("/jobs", data=fields, files={"model": ("m.onnx", model)}, headers=sent)
        assert posted.status_code == 201


async def test_the_page_is_served_with_a_policy_that_runs_nothing_from_elsewhere(gateway: GatewayProcess):
    async with gateway.operators() as operators:
        page = await operators.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["content-security-policy"] == POLICY
        assert page.headers["x-frame-options"] == "DENY"
        again = await operators.get("/", headers={"If-None-Match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        for path in re.findall(r'(?:src|href)="/?(assets/[^"]+)"', page.text):
            asset = await operators.get(f"/{path}")
            assert asset.status_code == 200, path
            assert asset.headers["content-security-policy"] == POLICY


async def test_reading_needs_no_header_that_only_browsers_send(gateway: GatewayProcess):
    async with httpx.AsyncClient(base_url=gateway.internal_url, trust_env=False) as client:
        assert (await client.get("/jobs")).status_code == 200
        assert (await client.get("/queues/stats")).status_code == 200
