"""Directories for attempts. Those of a worker that was killed are removed by any other worker on the machine."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from converter.common.background import Repeated

PREFIX = "converter-"
SETTLED_S = 60.0
"""A place younger than this may be about to be locked."""


class Workdirs:
    """One worker's place for its attempts: a directory of its own, locked for as long as the worker lives."""

    def __init__(self, home: Path) -> None:
        self._home = home

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[Path]:
        """A new directory, gone at the end of the context."""
        path = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self._home))
        try:
            yield path
        finally:
            await asyncio.to_thread(_remove, path)


@contextlib.asynccontextmanager
async def workdirs(parent: Path | None) -> AsyncIterator[Workdirs]:
    """A worker's place below `parent` (default: the system's temporary directory), gone at the end of the context."""
    below = Path(parent or tempfile.gettempdir())
    await asyncio.to_thread(_remove_abandoned, below)
    home = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=PREFIX, dir=below))
    # The kernel gives the lock back when the process ends, however it ends.
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            # Again and again: what a killed worker left is too young to be removed when its successor starts.
            async with Repeated(partial(asyncio.to_thread, _remove_abandoned, below), SETTLED_S):
                yield Workdirs(home)
        finally:
            await asyncio.to_thread(_remove, home)


def _remove_abandoned(below: Path) -> None:
    for home in below.glob(f"{PREFIX}*"):
        # Several workers may start at once: what one of them looks at, another may just have removed.
        with contextlib.suppress(OSError):
            if time.time() - home.stat().st_mtime > SETTLED_S:
                _remove_unlocked(home)


def _remove_unlocked(home: Path) -> None:
    with (home / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(home)


def _remove(directory: Path) -> None:
    """Remove it with all that is in it; a converter may have locked what it made."""
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():
        with contextlib.suppress(OSError):
            directory.chmod(0o700)
            for parent, names, _ in os.walk(directory):
                for below in (Path(parent, name) for name in names):
                    if not below.is_symlink():
                        below.chmod(0o700)
        shutil.rmtree(directory, ignore_errors=True)
