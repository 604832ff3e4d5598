"""What holds of every answer, whatever was asked."""

from __future__ import annotations

import asyncio
import signal

import httpx
import pytest

from .conftest import GatewayProcess, Issuer, StartGateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

ABSENT = "/api/v1/jobs/0199c1f2-0000-7000-8000-000000000001"


async def raw(gateway: GatewayProcess, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(request)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/jobs", 404, "not_found"),
        ("GET", "/queues/stats", 404, "not_found"),
        ("GET", "/metrics", 404, "not_found"),
        ("GET", "/api/v1", 404, "not_found"),
        ("GET", "/api/v1/jobs/../../health/x", 404, "not_found"),
        ("POST", "/api/v2/jobs", 404, "not_found"),
        ("PUT", "/api/v1/jobs", 405, "method_not_allowed"),
        ("PATCH", ABSENT, 405, "method_not_allowed"),
        ("GET", f"{ABSENT}/promote", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("GET", ABSENT, 401, "invalid_token"),
        ("GET", "/api/v1/jobs?user_id=a", 401, "invalid_token"),
        ("POST", f"{ABSENT}/promote", 401, "invalid_token"),
    ],
)
async def test_every_refusal_comes_in_the_envelope(
    gateway: GatewayProcess, method: str, path: str, status: int, code: str
):
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
        answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert error["code"] == code
    assert set(error) == {"code", "message", "details", "request_id"}
    assert error["request_id"] == answer.headers["x-request-id"]
    assert ("allow" in answer.headers) == (status == 405)
    assert ("www-authenticate" in answer.headers) == (status == 401)


async def test_a_wrong_method_is_told_the_right_ones(gateway: GatewayProcess):
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
        answer = await client.put("/api/v1/jobs")
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"


async def test_every_answer_is_hardened_and_names_no_server(gateway: GatewayProcess):
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
        for path in ("/health", "/nothing", ABSENT):
            headers = (await client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "no-referrer"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "strict-transport-security" not in headers
            assert "server" not in headers
        behind_tls = await client.get("/health", headers={"X-Forwarded-Proto": "https"})
        assert "strict-transport-security" in behind_tls.headers


@pytest.mark.parametrize("trusted", ["none", "10.0.0.0/8,::1"])
async def test_only_trusted_proxies_may_tell_of_tls(start_gateway: StartGateway, trusted: str):
    gateway = await start_gateway(TRUSTED_PROXIES=trusted)
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
        answer = await client.get("/health", headers={"X-Forwarded-Proto": "https"})
        assert "strict-transport-security" not in answer.headers


async def test_a_sane_request_id_is_taken_over_and_another_is_replaced(gateway: GatewayProcess):
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
        for offered in ("abc-1.2_X", "x" * 128):
            assert (await client.get("/health", headers={"X-Request-Id": offered})).headers["x-request-id"] == offered
        for offered in ("", "x" * 129, "a b", "a\tb", "<script>", "ü".encode()):
            given = (await client.get("/health", headers={"X-Request-Id": offered})).headers["x-request-id"]
            assert given != offered
            assert len(given) == 36


async def test_blanks_around_a_value_are_no_part_of_it(gateway: GatewayProcess):
    request = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: \t abc \t \r\n\r\n"
    assert b"x-request-id: abc\r\n" in await raw(gateway, request)


async def test_head_answers_like_get_without_a_body(gateway: GatewayProcess):
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
        got, head = await client.get("/health"), await client.head("/health")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


async def test_options_are_answered_without_a_token(gateway: GatewayProcess):
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
        answer = await client.options("/api/v1/jobs")
    assert answer.status_code == 204
    assert "POST" in answer.headers["allow"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused_in_the_envelope_too(gateway: GatewayProcess, request_bytes: bytes):
    answer = await raw(gateway, request_bytes)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"validation_error"' in answer
    assert b"x-content-type-options: nosniff" in answer


async def test_the_parser_s_reason_is_told(gateway: GatewayProcess):
    smuggled = b"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"
    answer = await raw(gateway, smuggled)
    assert b"Content-Length can't be present with Transfer-Encoding" in answer


@pytest.mark.parametrize("hosts", [b"", b"Host: a\r\nHost: b\r\n"])
async def test_a_request_names_one_host(gateway: GatewayProcess, hosts: bytes):
    answer = await raw(gateway, b"GET /health/live HTTP/1.1\r\n" + hosts + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"Host" in answer
    assert (await raw(gateway, b"GET /health/live HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
"""What Java's client sends by default with its first request where there is no TLS."""


async def test_an_upgrade_is_ignored_and_a_body_under_it_refused(gateway: GatewayProcess):
    """The parser skips such a body, so whoever sends it must not believe that it was read."""
    head = b"GET /health/live HTTP/1.1\r\nHost: x\r\n" + UPGRADE
    ignored = await raw(gateway, head + b"\r\n" + head + b"\r\n")
    assert ignored.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in ignored
    assert ignored.count(b"HTTP/1.1 ") == 1
    post = b"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\n" + UPGRADE
    assert (await raw(gateway, post + b"Content-Length: 0\r\n\r\n")).startswith(b"HTTP/1.1 401 ")
    for body in (b"Content-Length: 4\r\n\r\nbody", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"):
        refused = await raw(gateway, post + body)
        assert refused.startswith(b"HTTP/1.1 400 ")
        assert b"without Upgrade" in refused


async def test_a_head_that_is_too_large_is_refused(gateway: GatewayProcess):
    answer = await raw(gateway, b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"a" * 100_000)
    assert answer.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health/live HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 33_000 + b"\r\n\r\n",
        b"GET /health/live?" + b"a" * 33_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\n" + b"A: a\r\n" * 7_000 + b"\r\n",
        b"POST /health/live HTTP/1.1\r\nContent-Length: 4\r\nA: " + b"a" * 33_000 + b"\r\n\r\nbody",
    ],
)
async def test_a_head_that_is_too_large_is_refused_although_it_is_whole(gateway: GatewayProcess, head: bytes):
    for request in (head, head + head):
        answer = await raw(gateway, request)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert answer.count(b"HTTP/1.1") == 1
        assert b'"code":"headers_too_large"' in answer
    small = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\nA: " + b"a" * 30_000 + b"\r\n\r\n"
    assert (await raw(gateway, small)).startswith(b"HTTP/1.1 200 ")


async def test_a_head_that_does_not_come_or_trickles_in_is_cut_off_and_an_idle_connection_is_not(
    gateway: GatewayProcess,
):
    async def trickle() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /health HTTP/1.1\r\n")
        cut = asyncio.create_task(reader.read())
        while not cut.done():
            writer.write(b"A: b\r\n")
            await asyncio.wait({cut}, timeout=0.5)
        writer.close()
        return cut.result()

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"OPTIONS /api/v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n")
        return (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")

    async def idle() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        assert await answered(reader, writer)
        await asyncio.sleep(8)  # longer than many clients keep a connection, so that it is they who close it
        assert await answered(reader, writer)
        writer.close()
        return b""

    async def kept(then: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        assert await answered(reader, writer)
        writer.write(then)
        rest = await reader.read()
        writer.close()
        return rest

    async with asyncio.timeout(20):
        cut = await asyncio.gather(raw(gateway, b""), trickle(), kept(b"GET /health HTT"), kept(b"\r\n"), idle())
    assert cut == [b""] * 5


async def test_pipelined_requests_are_answered_in_order(gateway: GatewayProcess):
    request = b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Request-Id: %d\r\n\r\n"
    last = b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Request-Id: 3\r\nConnection: close\r\n\r\n"
    answer = await raw(gateway, request % 1 + request % 2 + last)
    assert [line for line in answer.split(b"\r\n") if line.startswith(b"x-request-id")] == [
        b"x-request-id: 1",
        b"x-request-id: 2",
        b"x-request-id: 3",
    ]


@pytest.mark.parametrize(
    "bad", [b"\xff\xff", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 33_000 + b"\r\n\r\n"]
)
async def test_a_bad_request_behind_a_good_one_takes_nothing_from_its_answer(gateway: GatewayProcess, bad: bytes):
    """Its own refusal would be read as the answer to the first one. It may follow that, where it came later."""
    answer = await raw(gateway, b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" + bad)
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    body, _, refusal = rest.partition(b"HTTP/1.1 4")
    assert body == b'{"status":"alive"}'
    assert refusal.count(b"HTTP/1.1 ") == 0


@pytest.mark.parametrize(
    ("claims", "code"),
    [({"scope": "converter:job.write"}, "insufficient_scope"), ({"scope": None}, "insufficient_scope")],
)
async def test_a_scope_that_is_missing_is_named(gateway: GatewayProcess, claims: dict[str, str], code: str):
    async with gateway.client(**claims) as client:
        answer = await client.get("/api/v1/jobs", params={"user_id": "a"})
    assert answer.status_code == 403
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["details"]["required_scope"] == "converter:job.read"
    assert error["details"]["provided_scopes"] == (claims["scope"] or "").split()
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


async def test_another_tenant_is_refused_only_where_a_tenant_is_configured(start_gateway: StartGateway):
    gateway = await start_gateway(CONVERTER_TENANT_ID="t1")
    for tenant, status in (("t1", 200), ("t2", 403), (None, 403)):
        async with gateway.client(tenant_id=tenant) as client:
            answer = await client.get("/api/v1/jobs", params={"user_id": "a"})
            assert answer.status_code == status
            if status == 403:
                assert answer.json()["error"]["code"] == "tenant_mismatch"


async def test_an_expired_token_says_so(gateway: GatewayProcess):
    async with gateway.client(exp=1) as client:
        answer = await client.get(ABSENT)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "token_expired")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


async def test_a_token_in_the_query_or_two_of_them_are_refused(gateway: GatewayProcess):
    token = gateway.issuer.token()
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
        for answer in (
            await client.get(ABSENT, params={"access_token": token}),
            await client.get(ABSENT, headers=[("Authorization", f"Bearer {token}")] * 2),
            await client.get(ABSENT, headers={"Authorization": f"Basic {token}"}),
        ):
            assert answer.status_code == 401


async def test_without_any_key_set_the_issuer_is_named_as_the_cause(start_gateway: StartGateway, issuer: Issuer):
    issuer.status = 500
    gateway = await start_gateway()
    async with gateway.client() as client:
        answer = await client.get(ABSENT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "auth_service_unavailable")
        health = await client.get("/health")
    assert health.json()["status"] == "degraded"
    assert health.json()["dependencies"]["member_center"]["status"] == "down"


async def test_the_internal_face_does_not_serve_the_public_api(gateway: GatewayProcess):
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{gateway.internal_url}/api/v1/jobs")).status_code == 404


async def test_a_gateway_that_is_told_to_stop_ends_well(start_gateway: StartGateway):
    gateway = await start_gateway()
    async with gateway.client() as client:
        await client.get("/health")
        gateway.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await gateway.process.wait() == 0
