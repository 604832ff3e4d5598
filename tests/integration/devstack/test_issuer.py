from __future__ import annotations

import httpx
import psutil
import pytest
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError
from joserfc.jwk import KeySet

from converter.devstack.addresses import AUDIENCE, CLIENT2_ID, CLIENT_ID, FILE_STORE_AUDIENCE

from .conftest import Identity

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the servers of a module serve all its tests


async def claims_of(
    token: str, issuer: Identity, http: httpx.AsyncClient
) -> tuple[dict[str, object], dict[str, object]]:
    """Header and claims of `token`, once its signature holds under the published keys."""
    keys = KeySet.import_key_set((await http.get(f"{issuer.url}/jwks")).json())
    verified = jwt.decode(token, keys, algorithms=["RS256"])
    return dict(verified.header), dict(verified.claims)


async def test_a_token_verifies_against_the_published_keys_and_says_who_may_do_what(
    issuer: Identity, http: httpx.AsyncClient
):
    answer = await issuer.ask(http, scope="converter:job.read", audience=AUDIENCE)

    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert (body["token_type"], body["scope"]) == ("Bearer", "converter:job.read")
    header, claims = await claims_of(body["access_token"], issuer, http)
    assert (header["alg"], header["typ"]) == ("RS256", "at+jwt")
    assert claims["iss"] == issuer.url
    assert claims["aud"] == AUDIENCE
    assert claims["sub"] == claims["client_id"] == CLIENT_ID
    assert claims["tenant_id"] == "one"
    assert claims["scope"] == "converter:job.read"
    assert claims["exp"] - claims["iat"] == body["expires_in"]  # type: ignore[operator]  # both are numbers


async def test_no_two_tokens_are_the_same(issuer: Identity, http: httpx.AsyncClient):
    assert await issuer.token(http) != await issuer.token(http)


async def test_without_a_scope_and_audience_a_client_gets_what_it_is_for(issuer: Identity, http: httpx.AsyncClient):
    body = (await issuer.ask(http, CLIENT2_ID)).json()

    _, claims = await claims_of(body["access_token"], issuer, http)
    assert (claims["aud"], claims["tenant_id"]) == (AUDIENCE, "two")
    assert claims["scope"] == "converter:job.write converter:job.read"


async def test_what_a_client_was_not_granted_is_refused(issuer: Identity, http: httpx.AsyncClient):
    requests: list[tuple[dict[str, str], str]] = [
        ({"scope": "files:upload.write", "audience": FILE_STORE_AUDIENCE}, "invalid_scope"),
        ({"scope": "converter:job.read files:read", "audience": AUDIENCE}, "invalid_scope"),
        ({"audience": "somebody-else"}, "invalid_target"),
        ({"grant_type": "authorization_code"}, "unsupported_grant_type"),
        ({"grant_type": ""}, "unsupported_grant_type"),
    ]
    for form, error in requests:
        answer = await issuer.ask(http, **form)
        assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_a_client_that_cannot_prove_itself_is_challenged(issuer: Identity, http: httpx.AsyncClient):
    for proof in ((CLIENT_ID, "wrong"), (CLIENT_ID, ""), ("nobody", "secret"), ("", "")):
        answer = await http.post(f"{issuer.url}/token", data={"grant_type": "client_credentials"}, auth=proof)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
        assert answer.headers["www-authenticate"].startswith("Basic ")


async def test_a_client_may_prove_itself_in_the_form_but_not_twice(issuer: Identity, http: httpx.AsyncClient):
    proof = {"client_id": CLIENT_ID, "client_secret": issuer.clients[CLIENT_ID].client_secret}

    once = await http.post(f"{issuer.url}/token", data={"grant_type": "client_credentials"} | proof)
    twice = await issuer.ask(http, **proof)

    assert once.status_code == 200
    assert (twice.status_code, twice.json()["error"]) == (400, "invalid_request")


async def test_a_body_that_is_no_form_or_repeats_a_field_is_refused(issuer: Identity, http: httpx.AsyncClient):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for content, headers in (
        (b'{"grant_type": "client_credentials"}', {"Content-Type": "application/json"}),
        (b"grant_type=client_credentials&grant_type=client_credentials", form),
        (b"grant_type=%ff", form),
    ):
        answer = await http.post(f"{issuer.url}/token", content=content, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_tokens_outlive_a_restart_and_a_lost_key_ends_them(issuer: Identity, http: httpx.AsyncClient):
    token = await issuer.token(http)
    await issuer.process.kill()
    await issuer.process.start()
    await claims_of(token, issuer, http)

    await issuer.process.kill()
    (issuer.directory / "issuer" / "signing_key.json").unlink()
    await issuer.process.start()
    with pytest.raises(InvalidKeyIdError):
        await claims_of(token, issuer, http)


async def test_the_metadata_lead_to_keys_and_tokens(issuer: Identity, http: httpx.AsyncClient):
    metadata = (await http.get(f"{issuer.url}/.well-known/openid-configuration")).json()

    assert metadata["issuer"] == issuer.url
    (key,) = (await http.get(metadata["jwks_uri"])).json()["keys"]
    assert key["kid"]
    assert "d" not in key
    assert (await http.get(metadata["token_endpoint"])).status_code == 405


async def test_it_listens_on_loopback_alone_and_shows_its_secrets_to_the_owner_alone(issuer: Identity):
    listening = psutil.Process(issuer.process.pid).net_connections(kind="inet")
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}
    modes = {file.name: file.stat().st_mode & 0o777 for file in (issuer.directory / "issuer").iterdir()}
    assert modes == {"clients.json": 0o600, "signing_key.json": 0o600}
