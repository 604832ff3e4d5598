"""Who asks, and what the token lets them do: an OAuth 2.0 resource server (RFC 6750, RFC 8725, RFC 9068).

NotAuthentic    the token proves nothing: 401 `invalid_token` or `token_expired`
KeysUnavailable there is no key set to check a token with: 503 `auth_service_unavailable` (in `jwks`)
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import msgspec
from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jws import JWSRegistry
from msgspec import Struct

from converter.contracts.job import JobRecord
from converter.gateway.clients.jwks import JwksCache
from converter.gateway.metrics import TOKENS
from converter.gateway.representation import JobResource

ALGORITHMS = frozenset({"RS256", "PS256", "ES256", "EdDSA"})
TOKEN_MAX_CHARS = 8192
CLIENT_ID_MAX_CHARS = 256
OWN_CLIENT_ID_PREFIX = "@"
"""Begins the client ids that the gateway itself uses. No token may carry one, so that their jobs are no client's."""
CACHED_TOKENS = 10_000
ACCESS_TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt"})
PLAIN_TOKEN_TYPES = frozenset({"jwt", "application/jwt"})
_KNOWN, _COMPUTED = TOKENS.labels("cache"), TOKENS.labels("signature")


class NotAuthentic(Exception):
    """The bearer token is not accepted; `code` is a row of the error table, `why` a sentence for the client."""

    def __init__(self, code: Literal["invalid_token", "token_expired"], why: str) -> None:
        super().__init__(why)
        self.code, self.why = code, why


class Principal(Struct, frozen=True):
    """A client with a valid token, which sees its own jobs; it is refused from `expires_at` on (seconds since 1970).

    `claimed_user` is the user that the token names. `user_id`, if set, is the only user whom the request may be for.
    """

    jobs_path: ClassVar[str] = "/api/v1/jobs"
    has_users: ClassVar[bool] = True

    client_id: str
    scopes: frozenset[str]
    tenant_id: str | None
    expires_at: float
    claimed_user: str | None = None
    user_id: str | None = None

    def sees(self, record: JobRecord) -> bool:
        """Whether the job is this client's, and this user's."""
        return record.request.client_id == self.client_id and self.acts_for(record.request.user_id)

    def acts_for(self, user_id: str) -> bool:
        """Whether the request may be for this user."""
        return self.user_id is None or self.user_id == user_id

    def shown(self, record: JobRecord, resource: JobResource) -> JobResource:  # noqa: ARG002 - as every caller
        """The resource as it is."""
        return resource


class TokenPolicy(Struct, frozen=True, kw_only=True):
    """What a token must say to be accepted here.

    `typ` is `at+jwt` where the issuer follows RFC 9068; with `any` a plain or missing type passes too, but never the
    type of another kind of JWT.
    """

    issuer: str
    audience: str
    leeway_s: float = 60.0
    typ: Literal["any", "at+jwt"] = "any"

    def accepts_type(self, typ: object) -> bool:
        """Whether a header's `typ` is that of an access token."""
        if typ is None:
            return self.typ == "any"
        if not isinstance(typ, str):
            return False
        accepted = ACCESS_TOKEN_TYPES | PLAIN_TOKEN_TYPES if self.typ == "any" else ACCESS_TOKEN_TYPES
        return typ.lower() in accepted


class _Claims(Struct, frozen=True):
    """The claims that count, with the types that they must have."""

    iss: str
    aud: str | list[str]
    exp: float
    nbf: float | None = None
    iat: float | None = None
    sub: str | None = None
    user_id: Any = None
    """What it may be is only looked at where it counts."""
    client_id: str | None = None
    azp: str | None = None
    tenant_id: str | None = None
    scope: str | None = None
    scp: list[str] | None = None


class _Allowed(JWSRegistry):
    """joserfc's algorithms, narrowed to `ALGORITHMS`. EdDSA is among them knowingly: no warning for each token."""

    def get_alg(self, name: str) -> Any:  # noqa: ANN401 - the library keeps this type's name to itself
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError(f"{name!r} is not allowed")
        return self.algorithms[name]


class TokenVerifier:
    """Turns bearer tokens into principals.

    A verified token is remembered until it expires, the issuer's keys change or are too old, so that its signature is
    computed once.

    Args:
        jwks: the issuer's keys.
        policy: what tokens must say.
        clock: seconds since 1970.
    """

    def __init__(self, jwks: JwksCache, policy: TokenPolicy, *, clock: Callable[[], float] = time.time) -> None:
        self._jwks, self._policy, self._clock = jwks, policy, clock
        self._registry = _Allowed(strict_check_header=False)
        self._verified: OrderedDict[bytes, tuple[Principal, int]] = OrderedDict()

    async def verify(self, token: str) -> Principal:
        """The client that `token` speaks for.

        Raises:
            NotAuthentic: malformed, not signed by the issuer, not for this audience, expired, or a claim is missing.
            KeysUnavailable: there is no key set yet, and the issuer does not give one.
        """
        if len(token) > TOKEN_MAX_CHARS:
            raise NotAuthentic("invalid_token", f"The token is longer than {TOKEN_MAX_CHARS} characters.")
        self._jwks.revalidate()
        fingerprint = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        principal, generation = self._verified.get(fingerprint, (None, -1))
        if principal is not None and generation == self._jwks.generation and self._jwks.usable:
            if principal.expires_at > self._clock():
                self._verified.move_to_end(fingerprint)
                _KNOWN.inc()
                return principal
            raise NotAuthentic("token_expired", "The token has expired.")
        _COMPUTED.inc()
        principal = self._principal(await self._claims(token))
        self._verified[fingerprint] = (principal, self._jwks.generation)
        self._verified.move_to_end(fingerprint)
        if len(self._verified) > CACHED_TOKENS:
            self._verified.popitem(last=False)
        return principal

    async def _claims(self, token: str) -> _Claims:
        try:
            signed = jws.extract_compact(token.encode("ascii"), registry=self._registry)
            header = signed.headers()
        except (JoseError, ValueError, TypeError) as error:
            raise NotAuthentic("invalid_token", "The token is not a signed JWT.") from error
        kid, algorithm = header.get("kid"), header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise NotAuthentic("invalid_token", "The token's algorithm is not allowed.")
        if not isinstance(kid, str) or not kid:
            raise NotAuthentic("invalid_token", "The token does not say which key signed it (kid).")
        if "crit" in header or "b64" in header:
            raise NotAuthentic("invalid_token", "The token needs an extension that is not supported (crit).")
        if not self._policy.accepts_type(header.get("typ")):
            raise NotAuthentic("invalid_token", "The token is not an access token (typ).")
        key = await self._jwks.key(kid)
        if key is None:
            raise NotAuthentic("invalid_token", "The token is signed with a key that the issuer does not have.")
        try:
            key.check_alg(algorithm)
            genuine = jws.validate_compact(signed, key, registry=self._registry)
        except (JoseError, ValueError) as error:
            raise NotAuthentic("invalid_token", "The token's signature does not fit its key.") from error
        if not genuine:
            raise NotAuthentic("invalid_token", "The token's signature is wrong.")
        try:
            return msgspec.json.decode(signed.payload or b"", type=_Claims)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NotAuthentic("invalid_token", f"The token's claims cannot be used: {error}.") from error

    def _principal(self, claims: _Claims) -> Principal:
        now, leeway_s = self._clock(), self._policy.leeway_s
        if claims.iss != self._policy.issuer:
            raise NotAuthentic("invalid_token", "The token is from another issuer (iss).")
        if self._policy.audience not in ([claims.aud] if isinstance(claims.aud, str) else claims.aud):
            raise NotAuthentic("invalid_token", "The token is for another audience (aud).")
        if not all(math.isfinite(moment) for moment in (claims.exp, claims.nbf or 0.0, claims.iat or 0.0)):
            raise NotAuthentic("invalid_token", "The token's times are not numbers.")
        if claims.exp + leeway_s <= now:
            raise NotAuthentic("token_expired", "The token has expired.")
        if max(claims.nbf or 0.0, claims.iat or 0.0) > now + leeway_s:
            raise NotAuthentic("invalid_token", "The token is not valid yet (nbf, iat).")
        client_id = claims.client_id if claims.client_id is not None else claims.azp
        if not client_id or len(client_id) > CLIENT_ID_MAX_CHARS or not client_id.isprintable():
            raise NotAuthentic("invalid_token", "The token does not name a client (client_id, azp).")
        if client_id.startswith(OWN_CLIENT_ID_PREFIX):
            raise NotAuthentic("invalid_token", f"A client's name cannot begin with {OWN_CLIENT_ID_PREFIX} here.")
        return Principal(
            client_id=client_id,
            scopes=frozenset([*(claims.scope or "").split(), *(claims.scp or [])]),
            tenant_id=claims.tenant_id,
            expires_at=claims.exp + leeway_s,
            claimed_user=_claimed_user(claims),
        )


def _claimed_user(claims: _Claims) -> str | None:
    if claims.user_id is None:
        return claims.sub
    return claims.user_id if isinstance(claims.user_id, str) else None
