"""What a client writes stays what it is: no other header, no forged line, no address that is asked, no way round."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from .conftest import Form, GatewayProcess, Issuer, StartGateway

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

ABSENT = "/api/v1/jobs/0199c1f2-0000-7000-8000-000000000001"
FORGED = 'x\r\nX-Forged: 1\r\n\r\n{"action": "forged"}\n\x1b[2J\u2028\u0085"}\n{"action":"forged"}\n'
FIELDS = ("user_id", "platform", "model_id", "version", "targets", "preprocess", "quantization", "input_shape")
FIELDS += ("model_sha256", "model_upload_id", "of_no_meaning")
HEADERS = (
    "Idempotency-Key",
    "X-Request-Id",
    "If-None-Match",
    "Last-Event-ID",
    "Range",
    "Upload-Metadata",
    "User-Agent",
)
HEADERS += (
    "Referer",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Original-URL",
    "Content-Digest",
    "Traceparent",
)


class Visitors:
    """An address that nobody has a reason to ask; it counts who does."""

    def __init__(self) -> None:
        self.count, self.url = 0, ""

    async def serve(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        writer.close()


@pytest_asyncio.fixture(loop_scope="module")
async def visitors() -> AsyncIterator[Visitors]:
    made = Visitors()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/latest/meta-data"
    async with server:
        yield made


async def everywhere(gateway: GatewayProcess, text: str, model: bytes, form: Form) -> list[httpx.Response]:
    """The answers to requests that carry `text` in every field, parameter, header and path that takes one."""
    answers, line = [], re.sub(r"[^\x20-\x7e]", " ", text).strip()
    async with gateway.client() as client:
        for field in FIELDS:
            sent = form.fields(**{field: text})
            answers.append(
                await client.post("/api/v1/jobs?dry_run=true", data=sent, files={"model": ("m.onnx", model)})
            )
        files = {"model": (f"{text}.onnx", model), text[:40]: (text, b"x")}
        answers.append(await client.post("/api/v1/jobs", data=form.fields(), files=files))
        answers += [await client.get(ABSENT, headers={header: line}) for header in HEADERS]
        metadata = "filename " + base64.b64encode(f"{text}.onnx".encode()).decode()
        tus = {"Tus-Resumable": "1.0.0", "Upload-Length": "9", "Upload-Metadata": metadata}
        answers.append(await client.post("/api/v1/uploads", headers=tus))
        answers += [
            await client.post(f"{ABSENT}/promote", json=order)
            for order in ({"target_object_key": text}, {"target_object_key": "a", "source": text}, {text: text})
        ]
        answers += [
            await client.get("/api/v1/jobs", params={"user_id": "a"} | {parameter: text})
            for parameter in ("user_id", "status", "limit", "cursor", text)
        ]
        quoted = "".join(f"%{byte:02x}" for byte in text.encode())
        for path in (
            f"/{quoted}",
            f"/api/v1/jobs/{quoted}",
            f"/api/v1/downloads/{quoted}",
            f"/api/v1/uploads/{quoted}",
        ):
            answers.append(await client.get(path, headers={"Tus-Resumable": "1.0.0"}))
    for claim in ("client_id", "sub", "scope", "azp", "tenant_id"):
        async with gateway.client(**{claim: f"{text} converter:job.read" if claim == "scope" else text}) as client:
            answers.append(await client.get(ABSENT))
    return answers


async def test_no_text_of_a_client_makes_a_header_or_a_line_of_the_log(
    start_gateway: StartGateway, model: bytes, form: Form, tmp_path: Path
):
    gateway = await start_gateway(API_V1_RATE_LIMIT_MAX="100000")
    answers = await everywhere(gateway, FORGED, model, form)
    for answer in answers:
        assert "x-forged" not in answer.headers
        assert answer.status_code < 500, answer.text
    async with gateway.client() as client:
        await client.get("/health", headers={"X-Request-Id": "the-last"})
    gateway.process.send_signal(signal.SIGTERM)
    await gateway.process.wait()
    text = (tmp_path / "gateway.log").read_bytes()
    assert not set(text) - {*range(0x20, 0x7F), 0x0A}, "what is no plain character is escaped"
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["service"] for line in lines} == {"api-gateway"}
    assert "forged" not in {line["action"] for line in lines}
    assert len([line for line in lines if line["action"] == "http.request"]) >= len(answers)


async def test_no_address_that_a_client_names_is_asked(
    start_gateway: StartGateway, model: bytes, form: Form, visitors: Visitors
):
    gateway = await start_gateway(API_V1_RATE_LIMIT_MAX="100000")
    await everywhere(gateway, visitors.url, model, form)
    issuer = gateway.issuer
    for header in ("jku", "x5u"):
        token = issuer.signed(issuer.claims(), **{header: visitors.url})
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
            await client.get(ABSENT, headers={"Authorization": f"Bearer {token}"})
    async with gateway.client(iss=visitors.url) as client:
        assert (await client.get(ABSENT)).status_code == 401
    assert visitors.count == 0


async def test_an_issuer_that_redirects_is_not_followed(
    start_gateway: StartGateway, issuer: Issuer, visitors: Visitors
):
    server = await asyncio.start_server(redirecting(visitors.url), "127.0.0.1", 0)
    async with server:
        elsewhere = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"
        gateway = await start_gateway(MEMBER_CENTER_JWKS_URL=elsewhere)
        async with gateway.client() as client:
            answer = await client.get(ABSENT)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "auth_service_unavailable")
    assert visitors.count == 0


def redirecting(url: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            pass
        else:
            writer.write(
                f"HTTP/1.1 302 -\r\nLocation: {url}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )
        writer.close()

    return serve


async def test_nothing_that_a_client_changes_about_itself_is_a_way_round_its_rate_limit(start_gateway: StartGateway):
    gateway = await start_gateway(API_V1_RATE_LIMIT_MAX="1")
    async with gateway.client(client_id="evading") as client:
        await client.get(ABSENT)
        headers = [{name: "203.0.113.9"} for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP")]
        headers += [{"X-HTTP-Method-Override": "OPTIONS"}, {"X-Request-Id": "new"}, {"Connection": "close"}]
        answers = [await client.get(ABSENT, headers=each) for each in headers]
        answers += [await client.request(method, ABSENT) for method in ("HEAD", "GET", "DELETE")]
        answers += [
            await client.post(path, headers={"X-HTTP-Method-Override": "DELETE"})
            for path in (
                "/api/v1/uploads/x",
                f"{ABSENT}/cancel",
                f"{ABSENT}/promote",
                "/api/v1/jobs?x=1",
                "/api/v1/jobs",
            )
        ]
    for claims in ({"sub": "x"}, {"jti": "y"}, {"scope": "converter:job.read"}, {"azp": "z"}, {"user_id": "other"}):
        async with gateway.client(client_id="evading", **claims) as client:
            answers.append(await client.get(ABSENT))
    assert Counter(answer.status_code for answer in answers) <= Counter({429: len(answers), 405: 1})
    async with gateway.client(client_id="evading") as client:
        for path in (
            ABSENT.upper(),
            f"/{ABSENT}",
            f"{ABSENT}/",
            ABSENT.replace("/v1", "/V1"),
            ABSENT.replace("/v1", "/./v1"),
        ):
            assert (await client.get(path)).status_code in {404, 429}, "what is not routed serves nothing"
