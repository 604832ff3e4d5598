"""Keeps parts alive: what ends unasked is started again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from converter.devstack.process import Program, ended

if TYPE_CHECKING:
    from converter.devstack.process import Part

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
STOP_WITHIN_S = 20.0
STEADY_AFTER_S = 30.0
"""A part that lived this long is started again without a growing pause."""


class Supervisor:
    """Parts by name.

    Args:
        changed: called after a part came up or went down.
        tell: called with a sentence when a part ended unasked.
    """

    def __init__(self, changed: Callable[[], None], tell: Callable[[str], None]) -> None:
        self._changed, self._tell = changed, tell
        self._parts: dict[str, Part] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._pids: dict[str, int] = {}

    @property
    def pids(self) -> dict[str, int]:
        """The processes that run now, by name."""
        return dict(self._pids)

    def part(self, name: str) -> Part:
        """The part `name`; KeyError when it was never started."""
        return self._parts[name]

    async def start(self, name: str, part: Part) -> None:
        """Start `part` and keep it alive from now on.

        Raises:
            RuntimeError: it did not come up.
        """
        self._parts[name] = part
        await part.start()
        self._up(name, part)
        self._watches[name] = asyncio.create_task(self._keep_alive(name, part), name=f"watch {name}")

    async def start_again(self, name: str, extra_environ: Mapping[str, str]) -> None:
        """Start a part that was let go, with `extra_environ` for this one process: the next one lacks it again."""
        part = self._parts[name]
        if extra_environ:
            if not isinstance(part, Program):
                raise TypeError(f"{name} takes no environment")
            part.extra_environ = dict(extra_environ)
        await self.start(name, part)

    async def let_go(self, name: str) -> Part:
        """Stop keeping `name` alive; whether it runs does not change."""
        watch = self._watches.pop(name, None)
        if watch:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        self._down(name)
        return self._parts[name]

    async def stop(self, names: Iterable[str], *, gently: bool = True) -> None:
        """End what of `names` was started, all at once: as an operator would, or without a chance to tidy up."""
        parts = [await self.let_go(name) for name in names if name in self._parts]
        await asyncio.gather(*(_end(part) if gently else part.kill() for part in parts))

    async def _keep_alive(self, name: str, part: Part) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            await ended(self._pids[name])
            self._down(name)
            await part.kill()  # what it left behind
            if time.monotonic() - began > STEADY_AFTER_S:
                pause_s = FIRST_PAUSE_S
            self._tell(f"{name} ended; starting it again (log: {part.log})")
            while name not in self._pids:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                try:
                    await part.start()
                except (RuntimeError, OSError) as error:
                    self._tell(f"{name} did not come up, next try in {pause_s:g} s: {str(error).splitlines()[0]}")
                else:
                    self._up(name, part)

    def _up(self, name: str, part: Part) -> None:
        self._pids[name] = part.pid
        self._changed()

    def _down(self, name: str) -> None:
        if self._pids.pop(name, None) is not None:
            self._changed()


async def _end(part: Part) -> None:
    part.send_signal(signal.SIGCONT)  # a frozen one would not notice
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_WITHIN_S):
            await part.stop()
    await part.kill()
