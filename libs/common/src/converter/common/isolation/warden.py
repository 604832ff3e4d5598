"""The warden: imports the converters once, forks a process for each conversion, watches, kills and buries it.

    python -I -m converter.common.isolation.warden DESCRIPTOR

Only the warden signals a converter. It is the parent, so until it has buried a process nobody else can get its number.
It lives as long as the service holds the other end of its socket: when the service dies, however that happens, the
kernel closes that end, and the warden kills every group and leaves. It never decodes anything that a converter wrote.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from converter.common.isolation import child, confine
from converter.common.isolation.messages import (
    MESSAGE_BYTES,
    Cause,
    Ended,
    Forked,
    Notice,
    Open,
    Ready,
    Start,
    Stop,
    Unready,
    decode_order,
    encode,
)
from converter.common.isolation.outcomes import MIB, Confinement, Limits

WATCH_S = 0.05
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class _Conversion:
    number: int
    pid: int
    pidfd: int
    limits: Limits
    started: float
    kernel_kills: int
    peak_bytes: int = 0
    cause: Cause = "exit"


class Warden:
    """Serves one service until its end of `control` closes."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        self._running: dict[int, _Conversion] = {}
        self._confinement = Confinement()

    def serve(self) -> None:
        """Obey orders and watch."""
        confine.adopt_orphans()
        open_ = True
        while open_:
            for key, _ in self._selector.select(WATCH_S if self._running else None):
                if key.fileobj is self._control:
                    open_ = self._obey()
                else:
                    self._bury(self._running[key.data])
            for conversion in list(self._running.values()):
                self._watch(conversion)
        for conversion in list(self._running.values()):
            self._kill(conversion, "stop")
            self._bury(conversion)

    def _obey(self) -> bool:
        """Read one order; False when there will be none any more."""
        message, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, 2)
        if not message:
            return False
        match decode_order(message):
            case Open() as order:
                self._preload(order)
            case Start() as order:
                self._start(order, *descriptors)
            case Stop(number) if number in self._running:
                self._kill(self._running[number], "stop")
        return True

    def _tell(self, notice: Notice) -> None:
        # A service that has gone is noticed at the next read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._control.send(encode(notice))

    def _preload(self, order: Open) -> None:
        self._confinement = order.confinement
        sys.path[:0] = map(str, order.confinement.sources)
        for module in order.preload:
            try:
                importlib.import_module(module)
            except Exception as error:  # noqa: BLE001 - a module may raise anything while it is imported
                self._tell(Unready(module, f"{type(error).__name__}: {error}"))
                return
        gc.freeze()  # or the first collection in a fork would copy every page
        self._tell(Ready())

    def _start(self, order: Start, report: int, output: int) -> None:
        warden = os.getpid()
        pid = os.fork()
        if pid == 0:
            child.run(warden, order, self._confinement, report, output)
        os.close(report)
        os.close(output)
        conversion = _Conversion(
            number=order.number,
            pid=pid,
            pidfd=os.pidfd_open(pid),
            limits=order.limits,
            started=time.monotonic(),
            kernel_kills=_kernel_kills(),
        )
        self._running[order.number] = conversion
        self._selector.register(conversion.pidfd, selectors.EVENT_READ, order.number)
        self._tell(Forked(order.number, pid))

    def _watch(self, conversion: _Conversion) -> None:
        limits = conversion.limits
        conversion.peak_bytes = max(conversion.peak_bytes, _resident_bytes(conversion.pid))
        if conversion.peak_bytes > limits.memory_mb * MIB:
            self._kill(conversion, "memory")
        elif time.monotonic() - conversion.started > limits.timeout_s:
            self._kill(conversion, "timeout")

    def _kill(self, conversion: _Conversion, cause: Cause) -> None:
        if conversion.cause == "exit":
            conversion.cause = cause
        with contextlib.suppress(ProcessLookupError):  # it has not come to its setsid yet
            os.killpg(conversion.pid, signal.SIGKILL)
        os.kill(conversion.pid, signal.SIGKILL)

    def _bury(self, conversion: _Conversion) -> None:
        """Its first process has ended (or is about to, killed): end all others, and tell."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(conversion.pid, signal.SIGKILL)
        _, status, usage = os.wait4(conversion.pid, 0)
        del self._running[conversion.number]
        self._selector.unregister(conversion.pidfd)
        os.close(conversion.pidfd)
        self._end_strays()
        exit_code = os.waitstatus_to_exitcode(status)
        killed_from_outside = conversion.cause == "exit" and exit_code == -signal.SIGKILL
        if killed_from_outside and _kernel_kills() > conversion.kernel_kills:
            conversion.cause = "kernel"
        self._tell(
            Ended(
                number=conversion.number,
                cause=conversion.cause,
                exit_code=exit_code,
                peak_memory_bytes=max(conversion.peak_bytes, usage.ru_maxrss * 1024),
                duration_s=round(time.monotonic() - conversion.started, 4),
            )
        )

    def _end_strays(self) -> None:
        """Kill and reap whoever has become our child: its converter, which adopts before we do, is dead.

        A stray's children become ours when it dies, so this goes on until there is none.
        """
        converters = {conversion.pid for conversion in self._running.values()}
        while strays := set(_children(os.getpid())) - converters:
            for stray in strays:
                os.kill(stray, signal.SIGKILL)
            for stray in strays:
                os.waitpid(stray, 0)


def _children(pid: int) -> list[int]:
    """Of all its threads. Empty once it is gone, and where the kernel does not tell."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


def _resident_bytes(pid: int) -> int:
    """Of the process and all its descendants, now."""
    pages = 0
    waiting = [pid]
    while waiting:
        process = waiting.pop()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
        waiting += _children(process)
    return pages * _PAGE_BYTES


def _kernel_kills() -> int:
    """How many processes the kernel has killed for want of memory since it started, in whichever control group."""
    for line in Path("/proc/vmstat").read_text().splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return int(count)
    return 0


if __name__ == "__main__":
    # Whoever stops the service may signal all its processes; converters end when the service says so.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as control:
        Warden(control).serve()
