"""Processes that are killed and frozen at moments that a seed decides."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from typing import NamedTuple

from converter.devstack.stack import Stack

PAUSE_S = (0.2, 1.5)
FREEZE_S = (0.2, 4.0)


class Blow(NamedTuple):
    """What was done to whom; `at_s` counts from the storm's begin."""

    at_s: float
    victim: str
    fault: str


class Storm:
    """Strikes parts of the stack until `stop` is called; what it does follows from `seed` alone.

    Args:
        stack: keeps its parts alive, so that what is killed comes back.
        victims: names of parts, as often as they shall be chosen.
        seed: decides who, what and when.
    """

    def __init__(self, stack: Stack, victims: list[str], seed: int) -> None:
        self._stack, self._victims, self._chance = stack, victims, random.Random(seed)  # noqa: S311 - wants a seed
        self._stop = asyncio.Event()
        self.blows: list[Blow] = []

    async def rage(self) -> None:
        """Strike, again and again, until `stop`; whom it froze it thaws."""
        began = time.monotonic()
        while not self._stop.is_set():
            await self._wait(self._chance.uniform(*PAUSE_S))
            victim, freezes, freeze_s = (
                self._chance.choice(self._victims),
                self._chance.random() < 0.25,
                self._chance.uniform(*FREEZE_S),
            )
            if victim not in self._stack.pids:  # it is down from the last blow
                continue
            self.blows.append(Blow(round(time.monotonic() - began, 1), victim, "frozen" if freezes else "killed"))
            if freezes:
                self._stack.send_signal(victim, signal.SIGSTOP)
                await self._wait(freeze_s)
                self._stack.send_signal(victim, signal.SIGCONT)
            else:
                self._stack.send_signal(victim, signal.SIGKILL)

    def stop(self) -> None:
        """No more blows."""
        self._stop.set()

    def tally(self) -> str:
        """How often each part was killed and frozen."""
        counts = Counter((blow.fault, blow.victim) for blow in self.blows)
        return ", ".join(f"{victim} {fault} {count}" for (fault, victim), count in sorted(counts.items()))

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            pass
