from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator

import httpx
import psutil
import pytest
from joserfc.jwk import RSAKey
from waiting import eventually

from converter.devstack.addresses import FILE_STORE_AUDIENCE, UPLOAD_SCOPE
from converter.devstack.clients import Client
from converter.devstack.issuer import access_token, signing_key

from .conftest import Identity, Store

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the servers of a module serve all its tests

CONTENT = b"an artifact " * 10_000
SHA256 = hashlib.sha256(CONTENT)
HOSTILE_KEYS = (
    b"",
    b"/etc/passwd",
    b"a//b",
    b"a/",
    b"..",
    b"../a",
    b"a/../../b",
    b"a/./b",
    b"%2e%2e/a",
    b"%2E%2e%2fa",
    b"a%2f..%2fb",
    b"%252e%252e%252fa",
    b"%25252e%25252e/a",
    b"..%5ca",
    b"a\\..\\b",
    b"%c0%ae%c0%ae/a",
    b"%c0%afa",
    b"%ff",
    b"a%00.nef",
    b"a%0d%0ab",
    b"a%7f",
    b"%ef%bc%8e%ef%bc%8e/a",
    b"a%ef%bc%8f..%ef%bc%8fb",
    b"x" * 256,
    b"x/" * 512 + b"x",
)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def exchange(store: Store, target: bytes, token: str, body: bytes, *, length: int | None = None) -> int | None:
    """The status that a PUT of exactly these bytes is answered with; a truncated one ends after `body`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", store.port)
    head = (
        b"PUT %b HTTP/1.1\r\nHost: store\r\nAuthorization: Bearer %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    )
    writer.write(head % (target, token.encode(), len(body) if length is None else length) + body)
    if length is not None:
        writer.write_eof()
    status_line = (await reader.readline()).split()
    writer.close()
    await writer.wait_closed()
    return int(status_line[1]) if status_line else None


async def test_it_keeps_the_bytes_under_their_key(
    store: Store, http: httpx.AsyncClient, upload_token: str, read_token: str
):
    url = f"{store.url}/models/alice/yolo v2 \u00fc 100%25.nef"
    put = await http.put(url, content=CONTENT, headers=bearer(upload_token))

    assert put.status_code == 201
    assert put.json() == {
        "key": "models/alice/yolo v2 \u00fc 100%.nef",
        "size_bytes": len(CONTENT),
        "sha256": SHA256.hexdigest(),
    }
    assert store.kept() == {"files/models/alice/yolo v2 \u00fc 100%.nef": CONTENT}
    got = await http.get(url, headers=bearer(read_token))
    assert (got.status_code, got.content) == (200, CONTENT)
    looked = await http.head(url, headers=bearer(read_token))
    assert looked.headers["content-length"] == str(len(CONTENT))
    assert looked.headers["repr-digest"] == f"sha-256=:{base64.b64encode(SHA256.digest()).decode()}:"


async def test_a_second_upload_replaces_the_first(store: Store, http: httpx.AsyncClient, upload_token: str):
    await http.put(f"{store.url}/a.nef", content=b"old", headers=bearer(upload_token))
    again = await http.put(f"{store.url}/a.nef", content=b"new", headers=bearer(upload_token))

    assert again.status_code == 200
    assert store.kept() == {"files/a.nef": b"new"}


async def test_a_key_that_is_no_plain_relative_path_is_refused(store: Store, upload_token: str):
    answers = {key: await exchange(store, b"/files/" + key, upload_token, b"hostile") for key in HOSTILE_KEYS}

    assert set(answers.values()) <= {400, 404, 405}
    assert store.kept() == {}


async def test_a_key_cannot_run_through_a_file(store: Store, http: httpx.AsyncClient, upload_token: str):
    await http.put(f"{store.url}/a/b", content=b"kept", headers=bearer(upload_token))

    for key in ("a/b/c", "a"):
        answer = await http.put(f"{store.url}/{key}", content=b"refused", headers=bearer(upload_token))
        assert answer.status_code == 409
    assert store.kept() == {"files/a/b": b"kept"}


async def test_without_a_token_nothing_is_stored(store: Store, http: httpx.AsyncClient):
    for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer"}):
        answer = await http.put(f"{store.url}/a", content=CONTENT, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert store.kept() == {}


async def test_a_token_without_the_scope_is_refused(
    store: Store, http: httpx.AsyncClient, upload_token: str, read_token: str
):
    put = await http.put(f"{store.url}/a", content=CONTENT, headers=bearer(read_token))
    got = await http.get(f"{store.url}/a", headers=bearer(upload_token))

    assert (put.status_code, got.status_code) == (403, 403)
    assert (
        f'error="insufficient_scope", error_description="the token does not grant {UPLOAD_SCOPE}"'
        in (put.headers["www-authenticate"])
    )
    assert store.kept() == {}


async def test_a_token_that_the_issuer_did_not_sign_for_this_store_is_refused(
    store: Store, issuer: Identity, http: httpx.AsyncClient
):
    ours = signing_key(issuer.directory / "issuer")
    foreign = RSAKey.generate_key(2048, {"kid": str(ours.kid)})
    client = Client(client_id="a", client_secret="", grants={})
    good = {"issuer": issuer.url, "client": client, "audience": FILE_STORE_AUDIENCE, "scope": UPLOAD_SCOPE}
    tokens = {
        "foreign key": access_token(foreign, **good),
        "foreign issuer": access_token(ours, **good | {"issuer": "http://elsewhere"}),
        "foreign audience": access_token(ours, **good | {"audience": "kneron-converter"}),
        "expired": access_token(ours, **good, lifetime_s=-61),
        "no token": "e30.e30.e30",
    }
    for what, token in tokens.items():
        answer = await http.put(f"{store.url}/a", content=CONTENT, headers=bearer(token))
        assert (what, answer.status_code) == (what, 401)
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert store.kept() == {}


async def test_keys_that_the_issuer_rotates_are_learnt(store: Store, issuer: Identity, http: httpx.AsyncClient):
    asked = {"scope": UPLOAD_SCOPE, "audience": FILE_STORE_AUDIENCE}
    old = await issuer.token(http, "kneron-converter", **asked)
    assert (await http.put(f"{store.url}/a", content=b"a", headers=bearer(old))).status_code == 201
    await issuer.process.kill()
    (issuer.directory / "issuer" / "signing_key.json").unlink()
    await issuer.process.start()
    new = await issuer.token(http, "kneron-converter", **asked)

    async def accepted() -> bool:
        return (await http.put(f"{store.url}/b", content=b"b", headers=bearer(new))).status_code == 201

    assert await eventually(accepted)


async def test_a_truncated_upload_leaves_nothing(store: Store, upload_token: str):
    assert await exchange(store, b"/files/a.nef", upload_token, CONTENT, length=len(CONTENT) + 1) in {None, 400}

    async def nothing() -> bool:
        return store.kept() == {}

    assert await eventually(nothing)


async def test_an_upload_that_ends_inside_a_chunk_leaves_nothing(store: Store, upload_token: str):
    reader, writer = await asyncio.open_connection("127.0.0.1", store.port)
    head = "PUT /files/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head.format(upload_token).encode() + b"5\r\nwhole\r\n5\r\nha")
    await writer.drain()

    async def drafted() -> bool:
        return any((store.directory / "drafts").iterdir())

    assert await eventually(drafted)
    writer.close()
    await writer.wait_closed()

    async def nothing() -> bool:
        return store.kept() == {}

    assert await eventually(nothing)
    assert reader.at_eof()


async def test_bytes_without_the_announced_digest_are_refused(store: Store, http: httpx.AsyncClient, upload_token: str):
    announced = f"sha-256=:{base64.b64encode(SHA256.digest()).decode()}:"
    headers = bearer(upload_token) | {"Content-Digest": announced}

    bad = await http.put(f"{store.url}/a", content=CONTENT + b"!", headers=headers)
    assert bad.status_code == 400
    assert store.kept() == {}
    assert (await http.put(f"{store.url}/a", content=CONTENT, headers=headers)).status_code == 201


async def test_what_is_not_there_is_not_found(store: Store, http: httpx.AsyncClient, read_token: str):
    for key in ("a", "a/b"):
        assert (await http.get(f"{store.url}/{key}", headers=bearer(read_token))).status_code == 404
        assert (await http.head(f"{store.url}/{key}", headers=bearer(read_token))).status_code == 404


async def test_its_memory_does_not_grow_with_the_file(
    store: Store, http: httpx.AsyncClient, upload_token: str, read_token: str
):
    block, blocks = b"\xa5" * (1 << 20), 200

    async def body() -> AsyncIterator[bytes]:
        for _ in range(blocks):
            yield block

    before = psutil.Process(store.process.pid).memory_info().rss
    put = await http.put(f"{store.url}/big", content=body(), headers=bearer(upload_token), timeout=60)
    assert put.json()["size_bytes"] == blocks * len(block)
    received = 0
    async with http.stream("GET", f"{store.url}/big", headers=bearer(read_token)) as answer:
        async for piece in answer.aiter_raw():
            received += len(piece)
    assert received == blocks * len(block)
    assert psutil.Process(store.process.pid).memory_info().rss - before < 40 << 20
