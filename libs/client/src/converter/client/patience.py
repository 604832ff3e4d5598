"""Retries: after a growing pause, or when the service says so (`Retry-After`), and not for ever."""

from __future__ import annotations

import logging
import random
import time

from converter.client.errors import ConverterError, NoToken, Refused, Unreachable
from converter.client.wire import Wire

TROUBLES = (NoToken, Refused, Unreachable)
"""The errors that `Patience.after` takes: some of them pass when the request is repeated."""
_log = logging.getLogger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 8.0
_UNTOUCHED = frozenset({"rate_limit_exceeded", "service_busy"})
"""Refusals that say that nothing at all was done."""
_PASSING = _UNTOUCHED | {
    "auth_service_unavailable",
    "event_bus_unavailable",
    "idempotency_in_progress",
    "request_timeout",
    "storage_unavailable",
    "http_502",  # of a proxy, whose answers are not the gateway's
    "http_503",
    "http_504",
}


class Patience:
    """The retries of one piece of work.

    Args:
        wire: how to wait.
        patience_s: for how long it may fail in a row.
        repeatable: whether it does no harm when it is done twice.
    """

    def __init__(self, wire: Wire, patience_s: float, *, repeatable: bool = True) -> None:
        self._wire, self._patience_s, self._repeatable = wire, patience_s, repeatable
        self._give_up_at: float | None = None
        self._pause_s = _FIRST_PAUSE_S

    def renew(self) -> None:
        """There was progress: the next failure is waited out as if it were the first."""
        self.working()
        self._pause_s = _FIRST_PAUSE_S

    def working(self) -> None:
        """A request was answered: the time begins anew with the next failure."""
        self._give_up_at = None

    async def after(self, problem: ConverterError) -> None:
        """Wait until the next try.

        Raises:
            ConverterError: `problem` itself: another try would not help or could do harm, or the time is over.
        """
        if not (_untouched(problem) or (self._repeatable and passing(problem))):
            raise problem
        pause_s = self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, guards nothing
        if isinstance(problem, Refused) and problem.retry_after_s is not None:
            pause_s = problem.retry_after_s
        now = time.monotonic()
        self._give_up_at = self._give_up_at or now + self._patience_s
        if now + pause_s > self._give_up_at:
            raise problem
        _log.info("%s; trying again", problem)
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        await self._wire.sleep(pause_s)


def passing(problem: ConverterError) -> bool:
    """Whether a later try may succeed."""
    match problem:
        case Refused(code=code):
            return code in _PASSING
        case NoToken(transient=transient):
            return transient
        case _:
            return isinstance(problem, Unreachable)


def _untouched(problem: ConverterError) -> bool:
    """Whether the request certainly had no effect, so that it may be repeated whatever it does."""
    match problem:
        case Refused(code=code):
            return code in _UNTOUCHED
        case Unreachable(sent=sent):
            return not sent
        case _:
            return isinstance(problem, NoToken) and problem.transient
