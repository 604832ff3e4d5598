"""The converter's own access tokens: OAuth 2.0 client credentials (RFC 6749 section 4.4) as an `httpx.Auth`.

async with client_credentials(settings, scope="files:upload.write") as auth:
    await http.get(url, auth=auth)

TokenUnavailable    no token is to be had from the issuer
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Annotated
from urllib.parse import quote_plus

import httpx
import msgspec
import structlog
from msgspec import Meta, Struct

from converter.common.settings import OAuthClientSettings

log = structlog.get_logger()

RENEWAL_PAUSE_S = 5.0
"""Between two failed renewals while the old token still lives: an issuer in trouble is not asked at every request."""
ASSUMED_LIFE_S = 300.0
"""Of a token whose answer has no `expires_in`, which RFC 6749 only recommends."""


class TokenUnavailable(Exception):
    """The issuer at `token_url` gave no token. `transient`: it may do so when asked again."""

    def __init__(self, token_url: str, why: str, *, transient: bool) -> None:
        super().__init__(f"no token from {token_url}: {why}")
        self.token_url, self.why, self.transient = token_url, why, transient


class _Answer(Struct):
    """RFC 6749 section 5.1."""

    access_token: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._~+/-]+=*\Z")]  # RFC 6750 b64token: safe in a header
    token_type: Annotated[str, Meta(pattern="^(?i:bearer)$")]
    expires_in: Annotated[float, Meta(gt=0)] = ASSUMED_LIFE_S


class _Refusal(Struct):
    """RFC 6749 section 5.2."""

    error: Annotated[str, Meta(pattern="^[a-z_]{1,40}$")]


class _Held(Struct, frozen=True):
    """A token, and when (monotonic seconds) it wants to be renewed and when it is no longer to be sent."""

    access_token: str
    renew_at: float
    dead_at: float


class TokenSource:
    """One token, shared by all who ask.

    It is renewed in the background before it ends, so that somebody waits for the issuer only when there is no living
    token, and all who wait then share one question to the issuer.
    """

    def __init__(self, http: httpx.AsyncClient, settings: OAuthClientSettings, scope: str) -> None:
        self._http, self._settings, self._scope = http, settings, scope
        self._held: _Held | None = None
        self._asking: asyncio.Task[_Held] | None = None
        self._next_renewal = 0.0

    async def token(self) -> str:
        """A token that has not ended and that nobody has refused yet.

        Raises:
            TokenUnavailable: there is none.
        """
        held, now = self._held, time.monotonic()
        if held is None or now >= held.dead_at:
            # Shielded: whoever stops waiting must not take the answer away from the others.
            return (await asyncio.shield(self._ask())).access_token
        if now >= max(held.renew_at, self._next_renewal):
            self._ask()
        return held.access_token

    def drop(self, token: str) -> None:
        """Forget `token`, which somebody has refused; a newer one stays."""
        if self._held and self._held.access_token == token:
            self._held = None

    async def close(self) -> None:
        """End a renewal that is under way."""
        if self._asking:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    def _ask(self) -> asyncio.Task[_Held]:
        if self._asking is None:
            self._asking = asyncio.create_task(self._request())
            self._asking.add_done_callback(self._answered)
        return self._asking

    def _answered(self, task: asyncio.Task[_Held]) -> None:
        self._asking = None
        if task.cancelled():
            return
        if error := task.exception():
            self._next_renewal = time.monotonic() + RENEWAL_PAUSE_S
            log.warning("token.unavailable", error=str(error))
        else:
            self._held = task.result()

    async def _request(self) -> _Held:
        settings, url = self._settings, self._settings.member_center_token_url
        form = {
            "grant_type": "client_credentials",
            "scope": self._scope,
            "audience": settings.file_access_agent_audience,
        }
        asked_at = time.monotonic()
        try:
            async with asyncio.timeout(settings.oauth_token_timeout_ms / 1000):
                response = await self._http.post(url, data=form, headers={"Authorization": self._basic()})
        except TimeoutError:
            raise TokenUnavailable(url, f"no answer in {settings.oauth_token_timeout_ms} ms", transient=True) from None
        except httpx.HTTPError as error:
            raise TokenUnavailable(url, f"{type(error).__name__}: {error}", transient=True) from error
        return self._read(response, asked_at)

    def _basic(self) -> str:
        # RFC 6749 section 2.3.1: both are form-encoded before they become a user and a password.
        user = quote_plus(self._settings.kneron_converter_client_id)
        password = quote_plus(self._settings.kneron_converter_client_secret.reveal())
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def _read(self, response: httpx.Response, asked_at: float) -> _Held:
        url, status = self._settings.member_center_token_url, response.status_code
        if status != httpx.codes.OK:
            with contextlib.suppress(msgspec.MsgspecError):
                refusal = msgspec.json.decode(response.content, type=_Refusal)
                raise TokenUnavailable(url, f"HTTP {status}, {refusal.error}", transient=response.is_server_error)
            transient = response.is_server_error or status == httpx.codes.TOO_MANY_REQUESTS
            raise TokenUnavailable(url, f"HTTP {status}", transient=transient)
        try:
            answer = msgspec.json.decode(response.content, type=_Answer, strict=False)
        except msgspec.MsgspecError:
            # `from None`: the cause could quote the answer, which holds the token.
            raise TokenUnavailable(url, "an answer that is no bearer token", transient=False) from None
        life = answer.expires_in
        skew = self._settings.oauth_token_refresh_skew_ms / 1000
        # A token that lives shorter than twice the skew is renewed at half of its life, not at every request.
        return _Held(answer.access_token, asked_at + max(life - skew, life / 2), asked_at + life - min(5.0, life / 10))


@contextlib.asynccontextmanager
async def token_source(settings: OAuthClientSettings, *, scope: str) -> AsyncIterator[TokenSource]:
    """Tokens with `scope` for the file store, over a connection of their own."""
    async with httpx.AsyncClient(timeout=settings.oauth_token_timeout_ms / 1000) as http:
        tokens = TokenSource(http, settings, scope)
        try:
            yield tokens
        finally:
            await tokens.close()
