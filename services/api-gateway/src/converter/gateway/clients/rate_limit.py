"""How many requests a client may make, counted by all gateways together.

A client's window begins with its first request and lasts as long as is configured. The bucket `rate_limits` holds how
many of the window's requests are leased. A gateway leases them in batches of `limit / LEASES_PER_WINDOW` by a
conditional write, and spends its batch without asking anybody. So in one window

- never more than `limit` requests are accepted, and
- a client is refused early by at most one batch less one for each other gateway, which may hold that many unspent.

While NATS is away each gateway counts for itself, up to `limit / SHARES_WHEN_APART` requests in a window, on top of
what had been leased: up to `SHARES_WHEN_APART` gateways together add no more than `limit`.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec
import structlog
from msgspec import Struct

from converter.common.bus import Bus, BusRefused, EventBusUnavailable, WrongSequence
from converter.common.entries import entry_in
from converter.common.topology import RATE_LIMITS, bucket_key, bucket_stream
from converter.gateway.http.headers import Header

log = structlog.get_logger()

LEASES_PER_WINDOW = 32
LEASE_TIMEOUT_S = 2.0
SHARES_WHEN_APART = 4
APART_S = 5.0
"""How long after a failed lease the bucket is left alone, so that an outage does not slow down every request."""
CLIENTS_MAX = 10_000


class Standing(Struct, frozen=True):
    """Whether one request is accepted, and what the client is told: how many are left, and seconds to a new window."""

    accepted: bool
    limit: int
    remaining: int
    reset_s: int

    def headers(self) -> list[Header]:
        """The fields of draft-ietf-httpapi-ratelimit-headers (up to its version 07) and their older forms."""
        limit, remaining = str(self.limit).encode(), str(self.remaining).encode()
        return [
            (b"ratelimit-limit", limit),
            (b"ratelimit-remaining", remaining),
            (b"ratelimit-reset", str(self.reset_s).encode()),
            (b"x-ratelimit-limit", limit),
            (b"x-ratelimit-remaining", remaining),
        ]


class _Count(Struct, frozen=True):
    """What the bucket holds of a client. Times are milliseconds since 1970."""

    window_ends_ms: int
    leased: int


class _Account:
    """What this gateway may still accept of a client: `in_hand` at once, `more` if it can get them."""

    def __init__(self) -> None:
        self.window_ends_ms = 0
        self.in_hand = self.more = 0
        self.own_share: int | None = None
        """What is left of this gateway's share, once it counts for itself in this window."""
        self.refilling = asyncio.Lock()

    def spend(self, now_ms: int) -> bool:
        if now_ms >= self.window_ends_ms or not self.in_hand:
            return False
        self.in_hand -= 1
        return True


class RateLimits:
    """Counts the requests of each client.

    Args:
        bus: shares the count.
        limit: how many requests a client may make in a window.
        window_ms: how long a window lasts.
        clock: seconds since 1970. Gateways' clocks may differ; a window's end is off by as much.
    """

    def __init__(self, bus: Bus, *, limit: int, window_ms: int, clock: Callable[[], float] = time.time) -> None:
        self._bus, self._limit, self._window_ms, self._clock = bus, limit, window_ms, clock
        self._batch = max(1, limit // LEASES_PER_WINDOW)
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._apart_until = -math.inf

    async def take(self, client_id: str) -> Standing:
        """Count one request of `client_id`."""
        account = self._account(client_id)
        accepted = account.spend(self._now_ms())
        if not accepted and self._refillable(account):
            async with account.refilling:  # whoever waited spends what the first one got
                accepted = account.spend(self._now_ms())
                if not accepted and self._refillable(account):
                    await self._refill(account, client_id)
                    accepted = account.spend(self._now_ms())
        return Standing(
            accepted=accepted,
            limit=self._limit,
            remaining=account.in_hand + account.more,
            reset_s=max(1, math.ceil((account.window_ends_ms - self._now_ms()) / 1000)),
        )

    def _account(self, client_id: str) -> _Account:
        account = self._accounts.setdefault(client_id, _Account())
        self._accounts.move_to_end(client_id)
        if len(self._accounts) > CLIENTS_MAX:
            self._accounts.popitem(last=False)  # what it had in hand is lost to its client, never given twice
        return account

    def _refillable(self, account: _Account) -> bool:
        over = self._now_ms() >= account.window_ends_ms
        rejoining = account.own_share is not None and time.monotonic() >= self._apart_until
        return over or account.more > 0 or rejoining

    async def _refill(self, account: _Account, client_id: str) -> None:
        if time.monotonic() >= self._apart_until:
            try:
                async with asyncio.timeout(LEASE_TIMEOUT_S):
                    await self._lease(account, client_id)
            except (TimeoutError, EventBusUnavailable, BusRefused) as error:
                self._apart_until = time.monotonic() + APART_S
                log.warning("rate_limit.counting_apart", error=str(error) or type(error).__name__)
            else:
                return
        self._take_own_share(account)

    async def _lease(self, account: _Account, client_id: str) -> None:
        # A digest, since a client's id may be longer than a subject and have any characters.
        subject = bucket_key(RATE_LIMITS, hashlib.sha256(client_id.encode()).hexdigest())
        while True:
            found = await self._bus.last(bucket_stream(RATE_LIMITS), subject)
            count = entry_in(found, _Count)
            if count is None or count.window_ends_ms <= self._now_ms():
                count = _Count(self._now_ms() + self._window_ms, 0)
            batch = max(0, min(self._batch, self._limit - count.leased))
            leased = _Count(count.window_ends_ms, count.leased + batch)
            if batch:
                try:
                    await self._bus.store(subject, msgspec.json.encode(leased), expected=found.sequence if found else 0)
                except WrongSequence:
                    continue
            account.window_ends_ms, account.own_share = leased.window_ends_ms, None
            account.in_hand, account.more = batch, max(0, self._limit - leased.leased)
            return

    def _take_own_share(self, account: _Account) -> None:
        if self._now_ms() >= account.window_ends_ms:
            account.window_ends_ms, account.own_share = self._now_ms() + self._window_ms, None
        if account.own_share is None:
            account.own_share = max(1, self._limit // SHARES_WHEN_APART)
        account.in_hand = min(self._batch, account.own_share)
        account.own_share -= account.in_hand
        account.more = account.own_share

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
