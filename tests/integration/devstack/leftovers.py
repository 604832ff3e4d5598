"""What a stack that is gone must not leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import psutil


def family(pid: int) -> list[psutil.Process]:
    """The process with everything that it started, and that these started."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def still_running(processes: Iterable[psutil.Process]) -> list[str]:
    """Those that have not ended, as text."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(str(process))
    return found


def left_of(directory: Path) -> list[str]:
    """The command lines of processes that belong to the stack in `directory`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            signs = [*process.cmdline(), process.cwd(), process.environ().get("DEVSTACK_DIRECTORY", "")]
            if process.pid != os.getpid() and any(str(directory) in sign for sign in signs):
                found.append(" ".join(process.cmdline()))
    return found


async def served(env: Mapping[str, str]) -> list[str]:
    """Those of the stack's addresses at which something listens."""
    found = []
    for name, address in env.items():
        if "://" in address:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(address).port)
                writer.close()
                await writer.wait_closed()
                found.append(name)
    return found


def listening_addresses(pid: int) -> set[str]:
    """The addresses on which the process, and what it started, listen."""
    connections = [connection for process in family(pid) for connection in process.net_connections(kind="inet")]
    return {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}
