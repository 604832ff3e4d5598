"""Starts Python programs by forking an interpreter that is warm: most of what a start costs is importing.

The suite starts hundreds of them. Each is a process of its own all the same, with the environment, the log
and the session that `converter.devstack.process.launch` gives it. But what the kernel tells of it, its command line and
the environment that it began with, is the interpreter's.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import warm_interpreter

from converter.devstack import process
from converter.devstack.process import Process, ended

cold = process.launch
"""Starts a program as people and containers do."""

ANSWER_TIMEOUT_S = 60.0
"""The first answer waits for all that is imported."""


def differs_at_start(environ: Mapping[str, str]) -> bool:
    """Whether Python itself would find something else in `environ`: too late for an interpreter that runs."""
    ours, theirs = (
        {name: value for name, value in variables.items() if name.startswith("PYTHON") and name != "PYTHONUNBUFFERED"}
        for variables in (os.environ, environ)
    )
    return ours != theirs


class Interpreter:
    """One for all programs of this process, on whichever event loop they are started."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._control, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(ANSWER_TIMEOUT_S)
        self._one_at_a_time = threading.Lock()

    def close(self) -> None:
        """End it, and with it whatever still runs."""
        self._theirs.close()
        self._control.close()
        if self._process is not None:
            self._process.wait()

    async def launch(
        self, command: Sequence[str], *, environ: Mapping[str, str], output: IO[bytes], directory: Path | None = None
    ) -> Process:
        """As `converter.devstack.process.launch`."""
        match command:
            case [sys.executable, "-m", module, *arguments] if not differs_at_start(environ):
                self._begin()
                order = {"module": module, "arguments": arguments, "environ": dict(environ)}
                order["directory"] = str(directory or Path.cwd())
                return await self._forked(order, os.dup(output.fileno()))
        return await cold(command, environ=environ, output=output, directory=directory)

    async def _forked(self, order: dict[str, Any], output: int) -> Fork:
        asking = asyncio.ensure_future(asyncio.to_thread(self.ask, order, output))
        try:
            return Fork(self, await asyncio.shield(asking))
        except asyncio.CancelledError:  # nobody would end it
            fork = Fork(self, await asking)
            fork.send_signal(signal.SIGKILL)
            await fork.wait()
            raise
        finally:
            os.close(output)

    def ask(self, order: dict[str, Any], *descriptors: int) -> int:
        """Have `order` carried out; what came of it."""
        with self._one_at_a_time:
            socket.send_fds(self._control, [json.dumps(order).encode()], descriptors)
            answer = json.loads(self._control.recv(warm_interpreter.ORDER_BYTES) or b'"the interpreter has ended"')
        if isinstance(answer, str):
            raise OSError(answer)
        return int(answer)

    def _begin(self) -> None:
        """On the thread that calls: the kernel ends it with that one."""
        if self._process is None:
            with self._theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-u", warm_interpreter.__file__, str(self._theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[self._theirs.fileno()],
                    start_new_session=True,
                )


class Fork:
    """A process of the interpreter's, in the ways in which asyncio's are used."""

    def __init__(self, interpreter: Interpreter, pid: int) -> None:
        self._interpreter, self.pid = interpreter, pid
        self._returncode: int | None = None
        self._pidfd = os.pidfd_open(pid)
        self._ended = select.poll()
        self._ended.register(self._pidfd, select.POLLIN)

    @property
    def returncode(self) -> int | None:
        if self._returncode is None and self._ended.poll(0):
            self._returncode = self._interpreter.ask({"ended": self.pid})
            os.close(self._pidfd)
        return self._returncode

    async def wait(self) -> int:
        while self.returncode is None:
            await ended(self.pid)
        return self._returncode

    def send_signal(self, number: int, /) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)
