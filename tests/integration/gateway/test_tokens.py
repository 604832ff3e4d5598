from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.jwk import RSAKey
from waiting import eventually

from converter.gateway.clients.jwks import JwksCache, JwksTuning, KeysUnavailable
from converter.gateway.clients.tokens import NotAuthentic, Principal, TokenPolicy, TokenVerifier

from .conftest import AUDIENCE, Issuer, MakeKey, function_fixture

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def wall(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@function_fixture
async def jwks(issuer: Issuer, clock: Clock) -> AsyncIterator[JwksCache]:
    async with httpx.AsyncClient(trust_env=False) as http:
        cache = JwksCache(issuer.url, http, tuning=JwksTuning(cooldown=30, max_age=600), clock=clock.monotonic)
        yield cache
        await cache.close()


@pytest.fixture
def verifier(issuer: Issuer, jwks: JwksCache, clock: Clock) -> TokenVerifier:
    return TokenVerifier(jwks, TokenPolicy(issuer=issuer.url, audience=AUDIENCE), clock=clock.wall)


async def refused(verifier: TokenVerifier, token: str) -> str:
    with pytest.raises(NotAuthentic) as caught:
        await verifier.verify(token)
    return caught.value.code


def segment(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


async def test_a_good_token_names_its_client_and_scopes(verifier: TokenVerifier, issuer: Issuer):
    principal = await verifier.verify(issuer.token(tenant_id="t1"))
    assert principal.client_id == "visiona"
    assert principal.scopes == {"converter:job.read", "converter:job.write"}
    assert principal.tenant_id == "t1"


async def test_azp_stands_in_for_client_id_and_scp_for_scope(verifier: TokenVerifier, issuer: Issuer):
    principal = await verifier.verify(issuer.token(client_id=None, azp="other", scope=None, scp=["a", "b"]))
    assert (principal.client_id, principal.scopes) == ("other", {"a", "b"})
    assert (await verifier.verify(issuer.token(azp="other"))).client_id == "visiona"


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256", "EdDSA"])
async def test_each_allowed_algorithm_is_verified(verifier: TokenVerifier, issuer: Issuer, alg: str, key_of: MakeKey):
    key = key_of(alg)
    issuer.published = [key.as_dict(private=False)]
    with pytest.warns(match="EdDSA") if alg == "EdDSA" else nullcontext():
        token = issuer.signed(issuer.claims(), key=key, alg=alg)
    assert (await verifier.verify(token)).client_id == "visiona"


async def test_a_token_without_a_signature_is_refused(verifier: TokenVerifier, issuer: Issuer):
    header = {"alg": "none", "typ": "at+jwt", "kid": "main"}
    unsigned = f"{segment(header)}.{segment(issuer.claims())}."
    assert await refused(verifier, unsigned) == "invalid_token"
    signature = issuer.token().rpartition(".")[2]
    assert await refused(verifier, unsigned + signature) == "invalid_token"


async def test_the_public_key_is_no_shared_secret(verifier: TokenVerifier, issuer: Issuer):
    for secret in (issuer.key.as_pem(private=False), json.dumps(issuer.key.as_dict(private=False)).encode()):
        signed = f"{segment({'alg': 'HS256', 'typ': 'at+jwt', 'kid': 'main'})}.{segment(issuer.claims())}"
        token = f"{signed}.{segment(hmac.digest(secret, signed.encode(), 'sha256'))}"
        assert await refused(verifier, token) == "invalid_token"


@pytest.mark.parametrize("alg", ["RS512", "ES512", "HS256", "rs256", None, 5, ["RS256"]])
async def test_an_algorithm_off_the_list_is_refused(verifier: TokenVerifier, issuer: Issuer, alg: object):
    token = f"{segment({'alg': alg, 'kid': 'main'})}.{segment(issuer.claims())}.{segment(b'x' * 256)}"
    assert await refused(verifier, token) == "invalid_token"


@pytest.mark.parametrize("kid", [None, "", "../main", "unknown", "main' OR 1"])
async def test_a_token_must_name_a_key_of_the_issuer(verifier: TokenVerifier, issuer: Issuer, kid: str | None):
    assert await refused(verifier, issuer.signed(issuer.claims(), kid=kid)) == "invalid_token"


async def test_a_key_that_the_token_brings_along_counts_for_nothing(verifier: TokenVerifier, issuer: Issuer):
    foreign = RSAKey.generate_key(2048, {"kid": "main"})
    token = issuer.signed(issuer.claims(), key=foreign, jwk=foreign.as_dict(private=False))
    assert await refused(verifier, token) == "invalid_token"


async def test_a_signature_of_another_token_is_refused(verifier: TokenVerifier, issuer: Issuer):
    head, _, signature = issuer.token().split(".")
    forged = f"{head}.{segment(issuer.claims(client_id='admin'))}.{signature}"
    assert await refused(verifier, forged) == "invalid_token"


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"b64": False, "crit": ["b64"]}])
async def test_extensions_that_must_be_understood_are_refused(
    verifier: TokenVerifier, issuer: Issuer, header: dict[str, Any]
):
    token = issuer.token()
    _, claims, signature = token.split(".")
    head = segment({"alg": "RS256", "typ": "at+jwt", "kid": "main"} | header)
    assert await refused(verifier, f"{head}.{claims}.{signature}") == "invalid_token"


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://elsewhere.example"},
        {"iss": None},
        {"aud": "other"},
        {"aud": ["other", "another"]},
        {"aud": None},
        {"exp": None},
        {"client_id": None},
        {"client_id": ""},
        {"client_id": "a\nb"},
        {"client_id": "x" * 257},
    ],
)
async def test_a_missing_or_foreign_claim_is_refused(verifier: TokenVerifier, issuer: Issuer, claims: dict[str, Any]):
    assert await refused(verifier, issuer.token(**claims)) == "invalid_token"


@pytest.mark.parametrize("name", ["iss", "aud", "exp", "nbf", "iat", "sub", "client_id", "tenant_id", "scope", "scp"])
@pytest.mark.parametrize("value", [True, {"a": 1}, [1]])
async def test_a_claim_of_another_type_is_refused(verifier: TokenVerifier, issuer: Issuer, name: str, value: object):
    assert await refused(verifier, issuer.token(**{name: value})) == "invalid_token"


@pytest.mark.parametrize("value", ["9999999999", "NaN", None])
async def test_a_time_that_is_no_number_is_refused(verifier: TokenVerifier, issuer: Issuer, value: str | None):
    assert await refused(verifier, issuer.token(exp=value)) == "invalid_token"


@pytest.mark.parametrize(("ahead_s", "code"), [(-61, "invalid_token"), (-59, None), (59, None), (61, "token_expired")])
async def test_clocks_may_differ_by_a_minute(issuer: Issuer, jwks: JwksCache, ahead_s: int, code: str | None):
    """Ours and the issuer's: behind, its token is not valid yet; ahead, it is not valid any more."""
    now = int(time.time())
    verifier = TokenVerifier(
        jwks, TokenPolicy(issuer=issuer.url, audience=AUDIENCE), clock=lambda: float(now + ahead_s)
    )
    token = issuer.token(nbf=now, iat=now, exp=now + 600) if ahead_s < 0 else issuer.token(iat=now - 600, exp=now)
    if code is None:
        await verifier.verify(token)
    else:
        assert await refused(verifier, token) == code


async def test_a_remembered_token_expires_too(verifier: TokenVerifier, issuer: Issuer, clock: Clock):
    token = issuer.token()
    await verifier.verify(token)
    clock.ahead = 659
    await verifier.verify(token)
    clock.ahead = 661
    assert await refused(verifier, token) == "token_expired"


@pytest.mark.parametrize(
    ("typ", "lenient", "strict"),
    [("at+jwt", True, True), ("application/at+JWT", True, True), ("JWT", True, False), (None, True, False)]
    + [(odd, False, False) for odd in ("logout+jwt", "dpop+jwt", "", 5)],
)
async def test_the_type_policy_decides_which_tokens_are_access_tokens(
    issuer: Issuer, jwks: JwksCache, typ: object, *, lenient: bool, strict: bool
):
    token = issuer.signed(issuer.claims(), typ=typ) if not isinstance(typ, int) else _with_number_for_type(issuer)
    for policy, taken in (("any", lenient), ("at+jwt", strict)):
        verifier = TokenVerifier(jwks, TokenPolicy(issuer=issuer.url, audience=AUDIENCE, typ=policy))  # type: ignore[arg-type]  # a Literal
        if taken:
            await verifier.verify(token)
        else:
            assert await refused(verifier, token) == "invalid_token"


@pytest.mark.parametrize("token", ["", "a", "a.b", "a.b.c", "a.b.c.d", "....", "é.é.é", "x" * 9000, "e30.e30.e30"])
async def test_what_is_no_token_is_refused(verifier: TokenVerifier, token: str):
    assert await refused(verifier, token) == "invalid_token"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(place=st.integers(0, 10_000), letter=st.sampled_from("ABCXYZ019-_."))
async def test_a_token_with_a_changed_letter_is_refused(
    verifier: TokenVerifier, issuer: Issuer, place: int, letter: str
):
    token = issuer.token()
    place %= len(token)
    forged = token[:place] + letter + token[place + 1 :]
    try:
        principal = await verifier.verify(forged)
    except NotAuthentic:
        return
    assert _bytes_of(forged) == _bytes_of(token)
    assert isinstance(principal, Principal)


async def test_a_rotated_key_is_found_without_a_401(
    verifier: TokenVerifier, issuer: Issuer, clock: Clock, key_of: MakeKey
):
    await verifier.verify(issuer.token())
    new = key_of("RS256", "next")
    issuer.published.append(new.as_dict(private=False))
    clock.ahead = 31
    assert await verifier.verify(issuer.signed(issuer.claims(), key=new))


async def test_a_key_that_comes_right_after_a_health_check_is_found_without_a_401(
    verifier: TokenVerifier, jwks: JwksCache, issuer: Issuer, clock: Clock, key_of: MakeKey
):
    for number in range(3):
        clock.ahead += 30.1  # as often as the gateway checks, which is as long as the cooldown
        await jwks.check()
        new = key_of("RS256", f"next{number}")
        issuer.published.append(new.as_dict(private=False))
        assert await verifier.verify(issuer.signed(issuer.claims(), key=new))
    assert issuer.fetches == 6


async def test_whoever_waits_for_a_new_key_gets_it_though_the_fetch_that_is_under_way_began_before(
    jwks: JwksCache, issuer: Issuer, clock: Clock, key_of: MakeKey
):
    await jwks.check()
    clock.ahead = 31
    issuer.open.clear()
    checking = asyncio.create_task(jwks.check())
    await eventually(lambda: asked(issuer, 2))
    waiting = [asyncio.create_task(jwks.key("next")) for _ in range(5)]
    await asyncio.sleep(0)
    issuer.published.append(key_of("RS256", "next").as_dict(private=False))
    issuer.open.set()
    await checking
    assert all(await asyncio.gather(*waiting))
    assert issuer.fetches == 3


async def test_a_key_that_comes_while_the_issuer_was_away_is_found_at_once(
    verifier: TokenVerifier, jwks: JwksCache, issuer: Issuer, clock: Clock, key_of: MakeKey
):
    await jwks.check()
    clock.ahead, issuer.status = 31, 500
    with pytest.raises(KeysUnavailable):
        await jwks.check()
    new, issuer.status = key_of("RS256", "next"), 200
    issuer.published.append(new.as_dict(private=False))
    assert await verifier.verify(issuer.signed(issuer.claims(), key=new))


async def test_checks_do_not_make_the_set_be_fetched_more_often_than_the_cooldown_unless_one_failed(
    jwks: JwksCache, issuer: Issuer, clock: Clock
):
    for _ in range(6):
        await jwks.check()
        clock.ahead += 5  # as often as the gateway checks while something is wrong
    assert issuer.fetches == 1
    issuer.status = 500
    for _ in range(2):
        with pytest.raises(KeysUnavailable):
            await jwks.check()
    issuer.status = 200
    await jwks.check()
    assert issuer.fetches == 4


async def test_unknown_keys_do_not_make_the_set_be_fetched_more_often_than_the_cooldown(
    verifier: TokenVerifier, issuer: Issuer
):
    await verifier.verify(issuer.token())
    for number in range(20):
        assert await refused(verifier, issuer.signed(issuer.claims(), kid=f"odd{number}")) == "invalid_token"
    assert issuer.fetches == 1


async def test_a_key_that_the_issuer_drops_stops_counting_for_remembered_tokens(
    verifier: TokenVerifier, jwks: JwksCache, issuer: Issuer, clock: Clock, key_of: MakeKey
):
    token = issuer.token(exp=int(time.time()) + 3600)
    await verifier.verify(token)
    issuer.published = [key_of("RS256", "next").as_dict(private=False)]
    clock.ahead = 601
    await verifier.verify(token)  # still good, and the reason why the set is fetched in the background
    await jwks.check()
    assert await refused(verifier, token) == "invalid_token"


async def test_cached_keys_serve_for_a_day_while_the_issuer_is_down(
    verifier: TokenVerifier, issuer: Issuer, clock: Clock
):
    remembered = issuer.token(exp=int(clock.wall()) + 90_000)
    await verifier.verify(remembered)
    issuer.status = 500
    clock.ahead = 86_000
    for token in (remembered, issuer.token(exp=int(clock.wall()) + 60, jti="1")):
        await verifier.verify(token)
    clock.ahead = 86_500
    for token in (remembered, issuer.token(exp=int(clock.wall()) + 60, jti="2")):
        with pytest.raises(KeysUnavailable):
            await verifier.verify(token)


async def test_a_slow_issuer_keeps_nobody_waiting_whose_key_is_known(
    verifier: TokenVerifier, issuer: Issuer, clock: Clock
):
    await verifier.verify(issuer.token())
    issuer.open.clear()
    clock.ahead = 700  # the set is stale: it is fetched anew, and serves meanwhile
    for number in range(3):
        await verifier.verify(issuer.token(exp=int(clock.wall()) + 60, jti=str(number)))
    await eventually(lambda: asked(issuer, 2))
    assert issuer.fetches == 2, "and one fetch is under way, not three"
    issuer.open.set()


async def test_without_any_key_an_issuer_that_does_not_answer_is_not_waited_for(issuer: Issuer):
    issuer.open.clear()
    async with httpx.AsyncClient(trust_env=False) as http:
        cache = JwksCache(issuer.url, http, tuning=JwksTuning(timeout=0.2))
        verifier = TokenVerifier(cache, TokenPolicy(issuer=issuer.url, audience=AUDIENCE))
        with pytest.raises(KeysUnavailable):
            await verifier.verify(issuer.token())
        issuer.open.set()
        await cache.close()


async def asked(issuer: Issuer, times: int) -> bool:
    return issuer.fetches >= times


async def test_without_any_key_set_nothing_can_be_checked(verifier: TokenVerifier, issuer: Issuer):
    issuer.status = 503
    with pytest.raises(KeysUnavailable):
        await verifier.verify(issuer.token())


async def test_an_odd_key_does_not_lose_the_set_and_a_weak_one_is_not_used(verifier: TokenVerifier, issuer: Issuer):
    with pytest.warns(match="2048 bits"):
        weak = RSAKey.generate_key(1024, {"kid": "weak", "use": "sig"})
    private = RSAKey.generate_key(2048, {"kid": "private", "use": "sig"})
    encrypting = RSAKey.generate_key(2048, {"kid": "enc", "use": "enc"})
    issuer.published += [
        {"kid": "odd", "kty": "XYZ"},
        {"kty": "RSA"},
        {"kid": "broken", "kty": "RSA", "n": "!", "e": "AQAB"},
        {"kid": "shared", "kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"},
        weak.as_dict(private=False),
        private.as_dict(private=True),
        encrypting.as_dict(private=False),
    ]
    await verifier.verify(issuer.token())
    for key in (weak, private):
        assert await refused(verifier, issuer.signed(issuer.claims(), key=key)) == "invalid_token"
    forged = issuer.signed(issuer.claims(), kid="enc")
    assert await refused(verifier, forged) == "invalid_token"


async def test_a_key_meant_for_one_algorithm_does_not_verify_another(verifier: TokenVerifier, issuer: Issuer):
    key = RSAKey.generate_key(2048, {"kid": "ps", "use": "sig", "alg": "PS256"})
    issuer.published = [key.as_dict(private=False)]
    plain = RSAKey.import_key({name: value for name, value in key.as_dict(private=True).items() if name != "alg"})
    assert await refused(verifier, issuer.signed(issuer.claims(), key=plain)) == "invalid_token"
    assert await verifier.verify(issuer.signed(issuer.claims(), key=plain, alg="PS256"))


def _with_number_for_type(issuer: Issuer) -> str:
    return f"{segment({'alg': 'RS256', 'kid': 'main', 'typ': 5})}.{segment(issuer.claims())}.{segment(b'x' * 256)}"


def _bytes_of(token: str) -> list[bytes]:
    return [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split(".")]
