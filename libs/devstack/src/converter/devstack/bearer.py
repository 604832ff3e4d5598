"""Checks access tokens as a resource server does (RFC 6750, RFC 9068)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet

COOLDOWN_S = 1.0
"""An unknown key id makes the keys be fetched again, but not more often than this."""


class Refused(Exception):
    """The request may not be served.

    Args:
        status: HTTP status, 401, 403 or 503.
        error: a code of RFC 6750 section 3.1; empty where no token was sent.
        description: what is wrong.
        scope: what the token lacks.
    """

    def __init__(self, status: int, error: str, description: str, *, scope: str = "") -> None:
        super().__init__(description)
        self.status, self.error, self.description, self.scope = status, error, description, scope

    @property
    def challenge(self) -> str:
        """The value of WWW-Authenticate."""
        if not self.error:
            return "Bearer"
        facts = {"error": self.error, "error_description": self.description, "scope": self.scope}
        return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in facts.items() if value)


class BearerCheck:
    """Tokens that `issuer` signed for `audience`; its keys are read from `jwks_url` when first needed."""

    def __init__(self, http: httpx.AsyncClient, *, issuer: str, jwks_url: str, audience: str) -> None:
        self._http, self._jwks_url = http, jwks_url
        self._keys: dict[str, Key] = {}
        self._next_fetch = 0.0
        self._fetching = asyncio.Lock()
        self._claims = jwt.JWTClaimsRegistry(
            leeway=60,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
            client_id={"essential": True},
        )

    async def require(self, authorization: str | None, scope: str) -> str:
        """The client whose token grants `scope`.

        Raises:
            Refused: no token, a bad one, one without the scope, or no keys to check it with.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refused(401, "", "a bearer token is needed")
        claims = await self._verified(token.strip())
        if scope not in str(claims.get("scope", "")).split():
            raise Refused(403, "insufficient_scope", f"the token does not grant {scope}", scope=scope)
        return str(claims["client_id"])

    async def _verified(self, token: str) -> dict[str, Any]:
        try:
            header = jws.extract_compact(token.encode()).headers()
            if header.get("typ") != "at+jwt":
                raise Refused(401, "invalid_token", "not an access token")
            key = await self._key(str(header.get("kid")))
            claims = jwt.decode(token, key, algorithms=["RS256"]).claims
            self._claims.validate(claims)
        except (JoseError, ValueError) as error:
            raise Refused(401, "invalid_token", "malformed, expired, or not signed for this store") from error
        return claims

    async def _key(self, kid: str) -> Key:
        async with self._fetching:
            if kid not in self._keys and time.monotonic() >= self._next_fetch:
                await self._fetch()
        if kid not in self._keys:
            raise Refused(401, "invalid_token", "signed with an unknown key")
        return self._keys[kid]

    async def _fetch(self) -> None:
        try:
            answer = await self._http.get(self._jwks_url)
            keys = KeySet.import_key_set(answer.raise_for_status().json()).keys
        except (httpx.HTTPError, JoseError, ValueError, KeyError) as error:
            raise Refused(503, "", f"no keys from {self._jwks_url}") from error
        self._keys = {str(key.kid): key for key in keys}
        self._next_fetch = time.monotonic() + COOLDOWN_S
