"""The issuer's signing keys, fetched when needed and kept while the issuer is away."""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
import warnings
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import structlog
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, JWKRegistry, Key, OKPKey, RSAKey
from msgspec import Struct

log = structlog.get_logger()

KEY_SET_MAX_BYTES = 256 * 1024
RSA_MIN_BITS = 2048
_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=(\d{1,9})(?:$|[\s,])")


class KeysUnavailable(Exception):
    """There is no key set, and the issuer does not give one."""


class JwksTuning(Struct, frozen=True, kw_only=True):
    """Seconds. A set is fresh for `max_age`, or less if the issuer says so, and is used when stale for `stale`."""

    max_age: float = 600.0
    cooldown: float = 30.0
    stale: float = 86_400.0
    timeout: float = 3.0


class JwksCache:
    """The key set at `url`.

    One fetch is under way at a time. A stale set keeps serving while a new one is fetched, and for a day when it cannot
    be. An unknown key id starts a fetch, but not more often than the cooldown, whatever else has fetched the set
    meanwhile; without any set a failed fetch may be repeated sooner, with growing pauses.

    Args:
        url: where the issuer publishes its keys (RFC 7517 section 5).
        http: the client to fetch with.
        tuning: how long things last.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        url: str,
        http: httpx.AsyncClient,
        *,
        tuning: JwksTuning | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url, self._http, self._clock = url, http, clock
        self._tuning = tuning or JwksTuning()
        self._keys: dict[str, Key] = {}
        self._thumbprints: dict[str, str] = {}
        self._loaded_at = self._fresh_until = -math.inf
        self._retry_at = self._next_look = -math.inf
        """When to fetch again after a failure, and for an unknown key id where there are keys."""
        self._failures = 0
        self._fetching: asyncio.Task[None] | None = None
        self.generation = 0
        """Grows whenever the set of keys changes, so that what an old key vouched for can be dropped."""

    @property
    def usable(self) -> bool:
        """Whether there is a key set that is not too old."""
        return bool(self._keys) and self._clock() - self._loaded_at <= self._tuning.stale

    async def key(self, kid: str) -> Key | None:
        """The key named `kid`, or `None` when the issuer has no such key.

        Raises:
            KeysUnavailable: there is no usable key set.
        """
        self.revalidate()
        # Shielded: one caller that goes away must not end the fetch that others wait for.
        while not self._has(kid):
            if self._fetching is None:
                if self._clock() < (self._next_look if self._keys else self._retry_at):
                    break
                self._next_look = self._clock() + self._tuning.cooldown
            await asyncio.shield(self._fetch())
        if not self.usable:
            raise KeysUnavailable(f"no key set from {self._url}")
        return self._keys.get(kid)

    def revalidate(self) -> None:
        """Start to fetch the set in the background if it is stale, so that a key that was dropped stops counting."""
        now = self._clock()
        if self._keys and now >= self._fresh_until and now >= self._retry_at:
            self._fetch()

    async def check(self) -> None:
        """Fetch the set, unless it was within the cooldown.

        Raises:
            KeysUnavailable: the issuer does not give a usable one.
        """
        if self._failures or self._clock() >= self._loaded_at + self._tuning.cooldown:
            await asyncio.shield(self._fetch())
        if self._failures:
            raise KeysUnavailable(f"no key set from {self._url}")

    async def close(self) -> None:
        """End a fetch that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _has(self, kid: str) -> bool:
        return kid in self._keys and self.usable

    def _fetch(self) -> asyncio.Task[None]:
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._refresh())
            self._fetching.add_done_callback(self._fetched)
        return self._fetching

    def _fetched(self, _: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(self._tuning.timeout):
                document, max_age = await self._download()
            keys = usable_keys(document)
        except (httpx.HTTPError, TimeoutError, ValueError) as error:
            self._failures += 1
            pause = self._tuning.cooldown
            if not self._keys:
                pause = min(pause, 2.0 ** min(self._failures, 6) * random.uniform(0.4, 0.6))  # noqa: S311 - spreads load
            self._retry_at = self._clock() + pause
            log.warning("jwks.refresh_failed", url=self._url, error=str(error) or type(error).__name__)
            return
        now = self._clock()
        thumbprints = {kid: key.thumbprint() for kid, key in keys.items()}
        if thumbprints != self._thumbprints:
            self.generation += 1
            log.info("jwks.keys_changed", url=self._url, kids=sorted(keys))
        self._keys, self._thumbprints, self._failures = keys, thumbprints, 0
        self._loaded_at = now
        age = self._tuning.max_age if max_age is None else min(max_age, self._tuning.max_age)
        self._fresh_until = now + max(age, self._tuning.cooldown)

    async def _download(self) -> tuple[bytes, float | None]:
        accept = {"Accept": "application/jwk-set+json, application/json"}
        async with self._http.stream("GET", self._url, headers=accept) as answer:
            if not answer.is_success:
                raise ValueError(f"HTTP {answer.status_code}")
            document = b""
            async for chunk in answer.aiter_bytes():
                document += chunk
                if len(document) > KEY_SET_MAX_BYTES:
                    raise ValueError(f"the key set is over {KEY_SET_MAX_BYTES} bytes")
            max_age = _MAX_AGE.search(answer.headers.get("cache-control", ""))
            return document, float(max_age[1]) if max_age else None


class _KeySet(Struct):
    keys: list[dict[str, Any]]


def usable_keys(document: bytes) -> dict[str, Key]:
    """The public signing keys in a JWK set, by key id. One odd key does not lose the set.

    Raises:
        ValueError: it is no JWK set, or holds no usable key.
    """
    try:
        entries = msgspec.json.decode(document, type=_KeySet).keys
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not a JWK set: {error}") from error
    keys = {str(entry["kid"]): key for entry in entries if (key := _signing_key(entry)) is not None}
    if not keys:
        raise ValueError("the key set holds no usable key")
    return keys


def _signing_key(entry: dict[str, Any]) -> Key | None:
    kid = entry.get("kid")
    if not isinstance(kid, str) or not kid or entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # of a short key, which is left out below
            key = JWKRegistry.import_key(entry)
        key.check_key_op("verify")
        if isinstance(key, RSAKey):
            return key if key.public_key.key_size >= RSA_MIN_BITS else None
        return key if isinstance(key, ECKey | OKPKey) and key.get_op_key("verify") else None
    except (JoseError, ValueError, TypeError, KeyError) as error:
        log.warning("jwks.key_ignored", kid=kid, error=str(error) or type(error).__name__)
        return None
