"""Tokens that are signed as they should be and still must not pass, and what the client is told of a refusal.

RFC 8725 (JWT best practices), RFC 9068 (JWT access tokens), RFC 6750 (bearer tokens).
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from converter.gateway.clients.jwks import JwksCache
from converter.gateway.clients.tokens import TOKEN_MAX_CHARS, NotAuthentic, TokenPolicy, TokenVerifier

from .conftest import AUDIENCE, GatewayProcess, Issuer, function_fixture

pytestmark = pytest.mark.asyncio(loop_scope="module")

ABSENT = "/api/v1/jobs/0199c1f2-0000-7000-8000-000000000001"
HEADER = {"alg": "RS256", "typ": "at+jwt", "kid": "main"}
DESCRIPTION = re.compile(r'error_description="([\x20-\x21\x23-\x5b\x5d-\x7e]+)"')
"""RFC 6750 section 3 allows these characters alone."""


@function_fixture
async def verifier(issuer: Issuer) -> AsyncIterator[TokenVerifier]:
    async with httpx.AsyncClient(trust_env=False) as http:
        jwks = JwksCache(issuer.url, http)
        yield TokenVerifier(jwks, TokenPolicy(issuer=issuer.url, audience=AUDIENCE))
        await jwks.close()


def segment(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def genuine(issuer: Issuer, payload: bytes, **header: object) -> str:
    """`payload` signed by the issuer's own key, under whatever header."""
    signed = segment(json.dumps(HEADER | header).encode()) + b"." + segment(payload)
    return (signed + b"." + segment(issuer.key.private_key.sign(signed, PKCS1v15(), SHA256()))).decode()


def claims(issuer: Issuer, **changed: object) -> bytes:
    return json.dumps(issuer.claims(**changed)).encode()


async def why_refused(verifier: TokenVerifier, token: str) -> str:
    with pytest.raises(NotAuthentic) as caught:
        await verifier.verify(token)
    assert caught.value.code == "invalid_token"
    return caught.value.why


async def test_what_these_tests_sign_passes_without_their_oddities(verifier: TokenVerifier, issuer: Issuer):
    assert (await verifier.verify(genuine(issuer, claims(issuer)))).client_id == "visiona"


@pytest.mark.parametrize(
    "header", [{"crit": ["exp"], "exp": 1}, {"crit": []}, {"crit": "b64"}, {"b64": True}, {"b64": False}]
)
async def test_a_genuine_token_that_needs_an_extension_is_refused(
    verifier: TokenVerifier, issuer: Issuer, header: dict[str, Any]
):
    await why_refused(verifier, genuine(issuer, claims(issuer), **header))


@pytest.mark.parametrize(
    "kid",
    [
        "../../etc/passwd",
        "main'--",
        "main\x00",
        "main ",
        "MAIN",
        "http://127.0.0.1/key",
        "$.keys[0]",
        "k" * 4000,
        1,
        True,
        ["main"],
        {"kid": "main"},
    ],
)
async def test_a_key_id_is_compared_and_nothing_else(verifier: TokenVerifier, issuer: Issuer, kid: object):
    await why_refused(verifier, genuine(issuer, claims(issuer), kid=kid))


async def test_an_address_in_the_header_is_not_asked(verifier: TokenVerifier, issuer: Issuer):
    asked: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(100))
        writer.close()

    async with await asyncio.start_server(note, "127.0.0.1", 0) as elsewhere:
        url = f"http://127.0.0.1:{elsewhere.sockets[0].getsockname()[1]}/jwks"
        await why_refused(verifier, genuine(issuer, claims(issuer), jku=url, x5u=url, kid="theirs"))
        await verifier.verify(genuine(issuer, claims(issuer), jku=url, x5u=url))
    assert asked == []


async def test_a_token_within_a_token_and_an_encrypted_one_are_refused(verifier: TokenVerifier, issuer: Issuer):
    inner = genuine(issuer, claims(issuer))
    await why_refused(verifier, genuine(issuer, inner.encode(), cty="JWT"))
    await why_refused(verifier, genuine(issuer, json.dumps(inner).encode(), cty="JWT"))
    await why_refused(verifier, f"{inner}.{'A' * 22}.{'B' * 22}")


@pytest.mark.parametrize("payload", [b"", b"null", b"[]", b'"text"', b"1", b"{", b"{}", b"\xff\xfe{}", b'{"iss": NaN}'])
async def test_claims_that_are_no_object_are_refused(verifier: TokenVerifier, issuer: Issuer, payload: bytes):
    await why_refused(verifier, genuine(issuer, payload))


async def test_of_a_claim_that_stands_twice_the_last_counts(verifier: TokenVerifier, issuer: Issuer):
    """As RFC 7519 section 4 demands where such a token is not refused."""
    good = claims(issuer, aud=None)[:-1]
    await why_refused(verifier, genuine(issuer, good + b', "aud": "%s", "aud": "other"}' % AUDIENCE.encode()))
    await verifier.verify(genuine(issuer, good + b', "aud": "other", "aud": "%s"}' % AUDIENCE.encode()))


async def test_a_token_may_be_as_long_as_is_allowed_and_no_longer(verifier: TokenVerifier, issuer: Issuer):
    short = genuine(issuer, claims(issuer, padding=""))
    room = (TOKEN_MAX_CHARS - len(short)) // 4 * 3
    assert await verifier.verify(genuine(issuer, claims(issuer, padding="x" * (room - 3))))
    assert "longer" in await why_refused(verifier, genuine(issuer, claims(issuer, padding="x" * (room + 3))))
    assert issuer.fetches == 1


@pytest.mark.parametrize("extra", ["\n", " ", "=", "\r\nX: y", "\x00"])
async def test_a_token_with_something_added_is_another_token(verifier: TokenVerifier, issuer: Issuer, extra: str):
    await why_refused(verifier, genuine(issuer, claims(issuer)) + extra)


async def test_a_request_without_a_token_is_told_the_scheme_and_no_error(gateway: GatewayProcess):
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
        for headers in ({}, {"Authorization": "Basic dTpw"}, {"Authorization": "Bearer"}):
            challenge = (await client.get(ABSENT, headers=headers)).headers["www-authenticate"]
            assert challenge == 'Bearer realm="kneron-model-converter"'


@pytest.mark.parametrize(
    "token",
    ["a.b.c", "x" * 9000, 'a"b', "a\\b", "a b", "é", '{"alg":"none"}', "..", "eyJhbGciOiJub25lIn0.e30."],
)
async def test_why_a_token_is_refused_is_told_in_characters_that_a_header_may_have(gateway: GatewayProcess, token: str):
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
        answer = await client.get(ABSENT, headers={"Authorization": b"Bearer " + token.encode("latin-1")})
    assert answer.status_code == 401
    challenge = answer.headers["www-authenticate"]
    assert 'error="invalid_token"' in challenge
    assert DESCRIPTION.search(challenge)
    assert token not in answer.text


async def test_a_bad_claim_is_named_and_the_header_stays_one(gateway: GatewayProcess):
    hostile = 'x", error="none\r\nSet-Cookie: a=b'
    for changed in ({"aud": 5}, {"scp": hostile}, {"iss": hostile}, {"client_id": hostile}):
        async with gateway.client(**changed) as client:
            answer = await client.get(ABSENT)
        assert answer.status_code == 401
        assert DESCRIPTION.search(answer.headers["www-authenticate"])
        assert answer.headers["www-authenticate"].count("error=") == 1
        assert "set-cookie" not in answer.headers


async def test_a_scope_that_is_missing_is_in_the_challenge_and_is_never_found_within_a_word(gateway: GatewayProcess):
    for scope in (
        "converter:job.readx",
        "xconverter:job.read",
        "converter:job.read,converter:job.write",
        "CONVERTER:JOB.READ",
    ):
        async with gateway.client(scope=scope) as client:
            answer = await client.get(ABSENT)
        assert answer.status_code == 403
        challenge = answer.headers["www-authenticate"]
        assert 'error="insufficient_scope"' in challenge
        assert 'scope="converter:job.read"' in challenge


async def test_the_scheme_is_named_in_any_case(gateway: GatewayProcess):
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
        for scheme in ("bearer", "BEARER", "Bearer "):
            headers = {"Authorization": f"{scheme} {gateway.issuer.token()}"}
            assert (await client.get(ABSENT, headers=headers)).status_code == 404


async def test_a_token_in_a_form_is_no_token(gateway: GatewayProcess):
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
        answer = await client.post(f"{ABSENT}/promote", data={"access_token": gateway.issuer.token()})
    assert answer.status_code == 401
