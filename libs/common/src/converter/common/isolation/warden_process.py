"""The warden as the service sees it: a process at the other end of a socket."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from typing import Self

from converter.common.conversion import ConversionTask
from converter.common.isolation.confine import ENVIRONMENT_KEPT
from converter.common.isolation.messages import (
    MESSAGE_BYTES,
    Ended,
    Forked,
    Open,
    Order,
    Ready,
    Start,
    Stop,
    Unready,
    decode_notice,
    encode,
)
from converter.common.isolation.outcomes import Confinement, Limits

OBEY_S = 5.0
"""How long a warden may take to do as it is told, or to see that time is up. One that does not is killed itself."""


class ConvertersUnavailable(Exception):
    """The converters cannot be imported, so nothing can be converted.

    Args:
        module: the one that failed.
        error: its exception.
    """

    def __init__(self, module: str, error: str) -> None:
        super().__init__(f"cannot import {module}: {error}")
        self.module, self.error = module, error


class WardenProcess:
    """A warden that runs, or did. Made by `start`."""

    def __init__(self, process: Process, control: socket.socket) -> None:
        self._process, self._control = process, control
        self._numbers = itertools.count(1)
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ends: dict[int, asyncio.Future[Ended]] = {}
        self._pids: dict[int, int] = {}
        self.alive = True
        asyncio.get_running_loop().add_reader(control, self._read)

    @classmethod
    async def start(cls, preload: Sequence[str], confinement: Confinement) -> Self:
        """Start a warden and wait until it has imported everything.

        Raises:
            ConvertersUnavailable: it could not.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.settimeout(0)
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-m", "converter.common.isolation.warden", str(theirs.fileno())),
                    pass_fds=[theirs.fileno()],
                    env=_environment(),
                    stdin=DEVNULL,
                    stdout=DEVNULL,
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        warden = cls(process, ours)
        try:
            warden._send(Open(tuple(preload), confinement))
            await warden._ready
        except BaseException:
            await warden.close()
            raise
        return warden

    def begin(self, converter: str, task: ConversionTask, limits: Limits, report: int, output: int) -> Underway:
        """Order a conversion that writes its words and its output into these two descriptors."""
        number = next(self._numbers)
        ended = self._ends[number] = asyncio.get_running_loop().create_future()
        self._send(Start(number, converter, task, limits), report, output)
        return Underway(self, number, ended)

    def stop(self, number: int) -> None:
        """Order it killed; nothing happens if it has ended."""
        if number in self._ends:
            self._send(Stop(number))

    def kill(self) -> None:
        """End a warden that does not answer; every converter of it ends as lost."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._lose()

    async def close(self) -> None:
        """End the warden and every converter that still runs."""
        self._lose()
        try:
            async with asyncio.timeout(OBEY_S):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def _send(self, order: Order, *descriptors: int) -> None:
        """Does not wait: the socket's buffer holds hundreds of orders, and a warden does nothing that takes long."""
        if self.alive:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                socket.send_fds(self._control, [encode(order)], descriptors)
                return
        self._lose()

    def _read(self) -> None:
        try:
            message = self._control.recv(MESSAGE_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            message = b""
        if not message:
            self._lose()
            return
        match decode_notice(message):
            case Ready():
                self._ready.set_result(None)
            case Unready(module, error):
                self._ready.set_exception(ConvertersUnavailable(module, error))
            case Forked(number, pid):
                self._pids[number] = pid
            case Ended() as ended:
                self._pids.pop(ended.number, None)
                self._ends.pop(ended.number).set_result(ended)

    def _lose(self) -> None:
        """The warden is gone, or shall go: it does as soon as our end is closed."""
        if self.alive:
            self.alive = False
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
        if not self._ready.done():
            self._ready.set_exception(ConvertersUnavailable("the converters", "the process that imports them died"))
        for pid in self._pids.values():
            # The converter died with its warden; what it started lives on in its group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self._pids.clear()
        for number, ended in self._ends.items():
            ended.set_result(Ended(number=number, cause="lost", exit_code=0, peak_memory_bytes=0, duration_s=0))
        self._ends.clear()


class Underway:
    """A conversion that was ordered."""

    def __init__(self, warden: WardenProcess, number: int, ended: asyncio.Future[Ended]) -> None:
        self._warden, self._number, self.ended = warden, number, ended

    def stop(self) -> None:
        """Order it killed; nothing happens if it has ended."""
        self._warden.stop(self._number)

    async def end(self) -> Ended:
        """See to it that no process of it is left."""
        self.stop()
        await asyncio.wait({self.ended}, timeout=OBEY_S)
        if not self.ended.done():
            self._warden.kill()
        return self.ended.result()


def _environment() -> dict[str, str]:
    """None of the service's secrets. Numeric libraries start no threads in it: a fork would lose them."""
    kept = {name: os.environ[name] for name in ENVIRONMENT_KEPT if name in os.environ}
    return kept | {"LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
