"""A part of the stack: a program that runs as a process of its own, writes a log, and can be asked whether it serves.

PartFailed    a part did not come up; carries its name and the end of its log
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Protocol

TAIL_LINES, TAIL_BYTES = 25, 16_000
_PROBE_EVERY_S = 0.05
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class Part(Protocol):
    """What the stack starts and stops; `start` returns when it serves."""

    @property
    def log(self) -> Path:
        """Where it writes what happens."""

    @property
    def pid(self) -> int:
        """The running process."""

    async def start(self) -> None:
        """Start it, and wait until it serves. Raises RuntimeError when it does not."""

    async def stop(self) -> None:
        """End it as an operator would."""

    async def kill(self) -> None:
        """End it without a chance to tidy up."""

    def send_signal(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT freeze and thaw it."""


class Process(Protocol):
    """One that runs, or has run: asyncio's."""

    pid: int

    @property
    def returncode(self) -> int | None:
        """Its exit code, or the signal that ended it as a negative number; none while it runs."""

    async def wait(self) -> int:
        """The same, once it has ended."""

    def send_signal(self, number: int, /) -> None:
        """Send `number`, if it runs."""


class PartFailed(RuntimeError):
    """`name` did not come up for the reason `why`; `tail` is the end of its log."""

    def __init__(self, name: str, why: str, tail: str) -> None:
        super().__init__(f"{name} {why}" + (f"\n  the end of its log:\n{tail}" if tail else ""))
        self.name, self.why, self.tail = name, why, tail


class Program:
    """A program in a session of its own that dies with the process that started it.

    Args:
        name: what to call it.
        command: program and arguments.
        environ: its whole environment.
        log: takes what it prints; appended to.
        ready: whether the process with this id serves; asked until it says so.
        directory: where it works; where its parent does when left out.
        start_timeout_s: how long that may take.
        stop_timeout_s: how long it may take to end after SIGTERM; past it, it is killed.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        log: Path,
        ready: Callable[[int], Awaitable[bool]],
        directory: Path | None = None,
        start_timeout_s: float = 30.0,
        stop_timeout_s: float = 10.0,
    ) -> None:
        self.name, self.log = name, log
        self.extra_environ: dict[str, str] = {}
        """For the next start alone."""
        self._command, self._environ, self._ready, self._directory = command, dict(environ), ready, directory
        self._start_timeout_s, self._stop_timeout_s = start_timeout_s, stop_timeout_s
        self._process: Process | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """The running process."""
        if self._process is None:
            raise RuntimeError(f"{self.name} does not run")
        return self._process.pid

    async def start(self) -> None:
        """Start, and wait until it is ready.

        Raises:
            PartFailed: it ended, or was not ready in time; nothing of it is left.
        """
        process = await self._spawn()
        serves, why = False, f"was not ready after {self._start_timeout_s:g} s"
        try:
            async with asyncio.timeout(self._start_timeout_s):
                while not (serves := await self._ready(process.pid)):
                    if process.returncode is not None:
                        why = f"ended with exit code {process.returncode}"
                        break
                    await asyncio.sleep(_PROBE_EVERY_S)
        except TimeoutError:
            pass
        finally:
            # Also on cancellation: whoever gives up on it leaves nothing of it behind.
            if not serves:
                await self.kill()
        if not serves:
            raise PartFailed(self.name, why, self._tail())

    async def run(self) -> None:
        """Start a program that ends by itself, and wait until it has.

        Raises:
            PartFailed: it did not end well, or not in time.
        """
        process = await self._spawn()
        why = f"did not end within {self._start_timeout_s:g} s"
        try:
            async with asyncio.timeout(self._start_timeout_s):
                why = f"ended with exit code {await process.wait()}"
        except TimeoutError:
            pass
        finally:
            await self.kill()
        if process.returncode != 0:
            raise PartFailed(self.name, why, self._tail())

    async def stop(self) -> None:
        """End it with SIGTERM, or with SIGKILL where that does not help in time."""
        if self._process is not None:
            self.send_signal(signal.SIGTERM)
            self.send_signal(signal.SIGCONT)  # a frozen process would not notice
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._stop_timeout_s):
                    await self._process.wait()
        await self.kill()

    async def kill(self) -> None:
        """End it, and whatever it left in its process group, with SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Send `number` to the process, if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _spawn(self) -> Process:
        environ, self.extra_environ = self._environ | self.extra_environ, {}
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = await launch(self._command, environ=environ, output=log, directory=self._directory)
        return self._process

    def _tail(self) -> str:
        return tail_of(self.log, self._log_start)


async def launch(
    command: Sequence[str], *, environ: Mapping[str, str], output: IO[bytes], directory: Path | None = None
) -> Process:
    """Start `command` in a session of its own, to die with this process; what it prints goes to `output`."""
    return await asyncio.create_subprocess_exec(
        *command,
        env=environ,
        cwd=directory,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=partial(die_with, os.getpid()),
    )


def wheel_program(name: str) -> str:
    """The program `name` that a wheel put beside this Python."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or name


def die_with(parent: int) -> None:
    """For `preexec_fn`: have the kernel kill this process when `parent` ends, however it ends (prctl(2))."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel knew
        os._exit(1)


def tail_of(log: Path, start: int = 0) -> str:
    """The last lines of `log`, none of them from before the byte `start`."""
    try:
        with log.open("rb") as opened:
            opened.seek(max(start, log.stat().st_size - TAIL_BYTES))
            lines = opened.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(lines[-TAIL_LINES:])


async def ended(pid: int) -> None:
    """Return when the process `pid` has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
