"""The development issuer: signed access tokens for the clients of one file (RFC 6749 section 4.4, RFC 9068).

    python -m converter.devstack.issuer --port 9090 --data DIR

`DIR/clients.json` lists the clients and is read at every request, so an edit counts at once. `DIR/signing_key.json` is
the RSA key, made at the first start. It stands in for the company's issuer on a developer's machine: it listens on
loopback only and keeps its clients' secrets in the clear.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hmac
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import msgspec
import uvicorn
from joserfc import jwt
from joserfc.jwk import RSAKey
from litestar import Litestar, Request, Response, get, post
from litestar.logging import LoggingConfig

from converter.common.private import write_private
from converter.devstack.clients import Client, read_clients
from converter.devstack.loopback import HOST, origin

TOKEN_LIFETIME_S = 3600
_FORM = "application/x-www-form-urlencoded"


class Refused(Exception):
    """No token. `error` is a code of RFC 6749 section 5.2 or, for a foreign audience, of RFC 8707 section 2."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error, self.description = error, description


def signing_key(directory: Path) -> RSAKey:
    """The key of an issuer on `directory`, made now if there is none."""
    file = directory / "signing_key.json"
    if not file.exists():
        key = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True)
        write_private(file, msgspec.json.encode(key.as_dict(private=True)))
    return RSAKey.import_key(msgspec.json.decode(file.read_bytes(), type=dict[str, Any]))


def authenticate(clients: Mapping[str, Client], authorization: str | None, form: Mapping[str, str]) -> Client:
    """The client that proves itself by HTTP Basic, or by the form's fields (RFC 6749 section 2.3.1).

    Raises:
        Refused: no proof, two of them, or a wrong one.
    """
    if authorization is not None and "client_secret" in form:
        raise Refused("invalid_request", "authenticate by header or by form, not by both")
    if authorization is None:
        client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
    else:
        scheme, _, encoded = authorization.partition(" ")
        try:
            pair = base64.b64decode(encoded.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            pair = ""
        if scheme.lower() != "basic" or ":" not in pair:
            raise Refused("invalid_client", "not HTTP Basic")
        client_id, secret = (unquote_plus(part) for part in pair.split(":", 1))
    client = clients.get(client_id)
    expected = client.client_secret if client else ""
    if client is None or not hmac.compare_digest(expected.encode(), secret.encode()):
        raise Refused("invalid_client", "unknown client or wrong secret")
    return client


def authorise(client: Client, form: Mapping[str, str]) -> tuple[str, str]:
    """Audience and scope of the token that `client` may have.

    Without `audience` (or `resource`) it is the first that the client was granted; without `scope` all that it was
    granted there.

    Raises:
        Refused: the client was not granted what it asks for.
    """
    if form.get("grant_type") != "client_credentials":
        raise Refused("unsupported_grant_type", "only client_credentials")
    audience = form.get("audience") or form.get("resource") or next(iter(client.grants), "")
    granted = client.grants.get(audience)
    if granted is None:
        raise Refused("invalid_target", f"not granted to this client: {audience}")
    asked = form.get("scope", "").split() or granted
    beyond = sorted(set(asked) - set(granted))
    if beyond:
        raise Refused("invalid_scope", f"not granted to this client for {audience}: {' '.join(beyond)}")
    return audience, " ".join(asked)


def access_token(
    key: RSAKey, *, issuer: str, client: Client, audience: str, scope: str, lifetime_s: int = TOKEN_LIFETIME_S
) -> str:
    """A signed JWT access token (RFC 9068 section 2) that `issuer` grants to `client` from now on."""
    now = int(time.time())
    claims = {
        "iss": issuer,
        "sub": client.client_id,
        "client_id": client.client_id,
        "tenant_id": client.tenant_id,
        "aud": audience,
        "scope": scope,
        "iat": now,
        "exp": now + lifetime_s,
        "jti": str(uuid.uuid4()),
    }
    return jwt.encode({"alg": "RS256", "typ": "at+jwt", "kid": key.kid}, claims, key)


def create_app(directory: Path, issuer: str, *, lifetime_s: int = TOKEN_LIFETIME_S) -> Litestar:
    """The issuer that calls itself `issuer` and keeps key and clients in `directory`."""
    key = signing_key(directory)

    @get("/jwks")
    async def jwks() -> Response[dict[str, Any]]:
        keys = {"keys": [key.as_dict(private=False)]}
        return Response(keys, media_type="application/jwk-set+json", headers={"Cache-Control": "max-age=300"})

    @get(["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"])
    async def metadata() -> dict[str, Any]:
        return {
            "issuer": issuer,
            "token_endpoint": f"{issuer}/token",
            "jwks_uri": f"{issuer}/jwks",
            "grant_types_supported": ["client_credentials"],
            "response_types_supported": [],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        }

    @post("/token", status_code=200)
    async def token(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
        form = _single_values(request.headers.get("content-type"), await request.body())
        client = authenticate(read_clients(directory), request.headers.get("authorization"), form)
        audience, scope = authorise(client, form)
        signed = access_token(key, issuer=issuer, client=client, audience=audience, scope=scope, lifetime_s=lifetime_s)
        answer = {"access_token": signed, "token_type": "Bearer", "expires_in": lifetime_s, "scope": scope}
        return Response(answer, headers={"Cache-Control": "no-store"})

    return Litestar(
        [jwks, metadata, token],
        exception_handlers={Refused: _refusal},
        openapi_config=None,
        logging_config=LoggingConfig(log_exceptions="always"),
    )


def _single_values(content_type: str | None, body: bytes) -> dict[str, str]:
    """The form's fields; RFC 6749 section 3.2 wants each at most once."""
    if (content_type or "").partition(";")[0].strip().lower() != _FORM:
        raise Refused("invalid_request", f"the body is not {_FORM}")
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError as error:
        raise Refused("invalid_request", f"the body does not parse: {error}") from error
    form = dict(fields)
    if len(form) != len(fields):
        raise Refused("invalid_request", "a field is repeated")
    return {name: value for name, value in form.items() if value}


def _refusal(_: Request[Any, Any, Any], refused: Refused) -> Response[dict[str, str]]:
    headers = {"Cache-Control": "no-store"}
    if refused.error == "invalid_client":
        headers["WWW-Authenticate"] = 'Basic realm="development issuer", charset="UTF-8"'
    return Response(
        {"error": refused.error, "error_description": refused.description},
        status_code=401 if refused.error == "invalid_client" else 400,
        headers=headers,
    )


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m converter.devstack.issuer", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True, help="directory of clients.json and the signing key")
    parser.add_argument("--token-lifetime-s", type=int, default=TOKEN_LIFETIME_S)
    arguments = parser.parse_args()
    app = create_app(arguments.data, origin(arguments.port), lifetime_s=arguments.token_lifetime_s)
    uvicorn.run(app, host=HOST, port=arguments.port, timeout_graceful_shutdown=3)


if __name__ == "__main__":
    main()
