"""How a client proves who it is: with a token it was given, or one that the issuer gives for its id and secret."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Annotated, Protocol
from urllib.parse import quote_plus, urlencode

import msgspec
from msgspec import Meta, Struct

from converter.client.errors import Misconfigured, NoToken, NotTheContract
from converter.client.wire import Answer, Body, Call, Run, Wire

RENEWAL_S = 60.0
"""How long before its end a token is renewed."""
ASSUMED_LIFE_S = 300.0
"""Of a token whose answer has no `expires_in`, which RFC 6749 only recommends."""
_B64TOKEN_CHARS = r"[A-Za-z0-9._~+/-]+=*"
_OK, _TOO_MANY, _SERVER_ERRORS = 200, 429, 500


class ClientCredentials(Struct, frozen=True, kw_only=True):
    """A client of the issuer (RFC 6749 section 4.4). The secret is never shown."""

    token_url: str
    client_id: str
    client_secret: str
    audience: str = "kneron-converter"
    scope: str = "converter:job.read converter:job.write"

    def __repr__(self) -> str:
        return f"ClientCredentials(token_url={self.token_url!r}, client_id={self.client_id!r})"


class Bearer(Struct, frozen=True):
    """A token from elsewhere, used until it is refused. It is never shown.

    Raises:
        Misconfigured: it has characters that no token has (RFC 6750 section 2.1).
    """

    token: str

    def __post_init__(self) -> None:
        # An HTTP library would quote it in its own complaint.
        if not re.fullmatch(_B64TOKEN_CHARS, self.token):
            raise Misconfigured("the token is none: it has characters that no bearer token has")

    def __repr__(self) -> str:
        return "Bearer(…)"


class Tokens(Protocol):
    """Where tokens come from."""

    async def token(self) -> str:
        """One that should be accepted; `NoToken` when there is none."""

    def drop(self, token: str) -> bool:
        """Forget `token`, which was refused; whether another one can be had."""


class GivenToken:
    """A token from elsewhere, which cannot be renewed."""

    def __init__(self, bearer: Bearer) -> None:
        self._token = bearer.token

    async def token(self) -> str:
        """That token."""
        return self._token

    def drop(self, token: str) -> bool:  # noqa: ARG002 - there is only the one
        """False: there is no other."""
        return False


class _Answer(Struct):
    """RFC 6749 section 5.1; the token as RFC 6750 writes it, safe in a header."""

    access_token: Annotated[str, Meta(pattern=rf"^{_B64TOKEN_CHARS}\Z")]
    expires_in: Annotated[float, Meta(gt=0)] = ASSUMED_LIFE_S


class _Refusal(Struct):
    """RFC 6749 section 5.2."""

    error: Annotated[str, Meta(pattern="^[a-z_]{1,40}$")]


class IssuedTokens:
    """Tokens of the issuer, each kept until shortly before it ends. Concurrent callers share one request for it."""

    def __init__(self, wire: Wire, credentials: ClientCredentials) -> None:
        self._wire, self._credentials = wire, credentials
        self._token: str | None = None
        self._renew_at = 0.0

    async def token(self) -> str:
        """A token that has neither ended nor been refused.

        Raises:
            NoToken: the issuer gives none.
            Unreachable: it does not answer.
        """
        async with self._wire.lock():
            if self._token is None or time.monotonic() >= self._renew_at:
                asked_at = time.monotonic()
                async with self._wire.send(self._request()) as answer:
                    granted = await self._read(answer)
                # A token of a short life is renewed at half of it, not at every request.
                life_s = granted.expires_in
                self._token, self._renew_at = granted.access_token, asked_at + max(life_s - RENEWAL_S, life_s / 2)
            return self._token

    def drop(self, token: str) -> bool:
        """Forget `token`; a newer one stays."""
        if self._token == token:
            self._token = None
        return True

    def _request(self) -> Call:
        known = self._credentials
        form = {"grant_type": "client_credentials", "audience": known.audience, "scope": known.scope}
        # RFC 6749 section 2.3.1: both are form-encoded before they become a user and a password.
        proof = f"{quote_plus(known.client_id)}:{quote_plus(known.client_secret)}".encode()
        return Call(
            method="POST",
            url=known.token_url,
            headers={"Authorization": f"Basic {base64.b64encode(proof).decode()}", "Accept": "application/json"},
            body=plain("application/x-www-form-urlencoded", urlencode(form).encode()),
        )

    async def _read(self, answer: Answer) -> _Answer:
        content = await answer.whole()
        if answer.status != _OK:
            why = f"HTTP {answer.status}"
            with suppress(msgspec.MsgspecError):
                why += f", {msgspec.json.decode(content, type=_Refusal).error}"
            transient = answer.status >= _SERVER_ERRORS or answer.status == _TOO_MANY
            raise NoToken(self._credentials.token_url, why, transient=transient)
        try:
            return msgspec.json.decode(content, type=_Answer, strict=False)
        except msgspec.MsgspecError:
            # `from None`: the cause could quote the answer, which holds the token.
            raise NotTheContract(self._credentials.token_url, "no bearer token") from None


def plain(media_type: str, content: bytes) -> Body:
    """A body that is in memory."""

    async def read(_: Run) -> AsyncGenerator[bytes, None]:
        yield content

    return Body(media_type, len(content), read)
