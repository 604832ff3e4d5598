"""What every side of the rows `pipeline`, `pipeline_power` and `pickup` does, and how its program is asked to.

A job is three steps in a row that do nothing, each handed on by the system under test and run in a process that is not
the client's. A side is a program:

    PROGRAM --jobs N --at-once K --alone M --server URL [--quiet S]

It starts its workers, does a few jobs to warm up, prints the line `busy`, does N jobs with K of them under way at any
time, prints the line `idle`, does M jobs one after the other, and prints one line of JSON: the figures `PRINTED`, of
the N jobs the rate, of the M ones the time from handing a job in to knowing that its third step is done. With
`--quiet S` it does only the M jobs, each S seconds after the last has ended, and prints `PICKED_UP` of the 3 x M waits
from handing a job in, or from a step's end, to the beginning of the step that follows. What else it says goes to
stderr. It ends with 0, and nothing that it started is left.

The server at `--server` is started for the row: by its `Durability` an acknowledged step outlives a process that is
killed (NATS with its default sync, Redis with `appendfsync everysec`), or a loss of power (whatever is acknowledged is
on the disk).

This module needs nothing but Python, so that the programs of other environments use it too: `answer` is the protocol.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import NamedTuple

JOBS_PER_S, P50_MS, P99_MS = "jobs/s", "p50 ms", "p99 ms"
PRINTED = (JOBS_PER_S, P50_MS, P99_MS)
CPU_MS = "CPU ms per job"
"""Of the client, the workers and the server together, during the N jobs; `peer` sees to it by the two marks."""
WRITES = "durable writes per job"
"""Where the server can tell."""
PICKUP_P50_MS, PICKUP_MAX_MS = "pick-up p50 ms", "pick-up max ms"
PICKED_UP = (PICKUP_P50_MS, PICKUP_MAX_MS)
BUSY, IDLE = "busy", "idle"
WARM_UP_JOBS = 50


class Durability(Enum):
    """What an acknowledged step outlives."""

    KILL = "a process that is killed"
    POWER = "a loss of power"


class Load(NamedTuple):
    """How many jobs, how many of them under way at once, and how many one after the other."""

    jobs: int = 1000
    at_once: int = 64
    alone: int = 200
    quiet_s: float | None = None


SLOW = Load(jobs=200, alone=50)
"""For a peer that does fewer than some 200 jobs a second, so that a round does not wait for it."""
QUIET = Load(jobs=0, alone=20, quiet_s=0.5)


def asked() -> tuple[Load, str]:
    """What the command line asks of this program, and the server's address."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--jobs", type=int, required=True)
    arguments.add_argument("--at-once", type=int, required=True)
    arguments.add_argument("--alone", type=int, required=True)
    arguments.add_argument("--server", required=True)
    arguments.add_argument("--quiet", type=float)
    given = arguments.parse_args()
    return Load(given.jobs, given.at_once, given.alone, given.quiet), given.server


async def answer(
    job: Callable[[], Awaitable[object]],
    load: Load,
    waits_ms: Callable[[], Sequence[float]] | None = None,
    written: Callable[[], Awaitable[int]] | None = None,
) -> None:
    """Do `load` and print what comes of it.

    Args:
        job: hands one in and returns when its third step is known to be done.
        load: how many.
        waits_ms: for `PICKED_UP`, what each hop of the jobs so far has waited; emptied by the call.
        written: how many durable writes there have been.
    """
    for _ in range(WARM_UP_JOBS):
        await job()
    if load.quiet_s is not None and waits_ms is not None:
        waits_ms()
        for _ in range(load.alone):
            await asyncio.sleep(load.quiet_s)
            await job()
        waited_ms = sorted(waits_ms())
        _say(json.dumps({PICKUP_P50_MS: percentile(waited_ms, 0.5), PICKUP_MAX_MS: waited_ms[-1]}))
        return
    before = await written() if written else 0
    _say(BUSY)
    figures = {JOBS_PER_S: await _rate(job, load)}
    _say(IDLE)
    if written:
        figures[WRITES] = (await written() - before) / load.jobs
    took_ms = await _latencies_ms(job, load)
    _say(json.dumps(figures | {P50_MS: percentile(took_ms, 0.5), P99_MS: percentile(took_ms, 0.99)}))


async def _rate(job: Callable[[], Awaitable[object]], load: Load) -> float:
    left = iter(range(load.jobs))

    async def one_after_the_other() -> None:
        for _ in left:
            await job()

    began = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(load.at_once)))
    return load.jobs / (time.perf_counter() - began)


async def _latencies_ms(job: Callable[[], Awaitable[object]], load: Load) -> list[float]:
    took_ms = []
    for _ in range(load.alone):
        began = time.perf_counter()
        await job()
        took_ms.append((time.perf_counter() - began) * 1e3)
    return sorted(took_ms)


def percentile(ascending: Sequence[float], share: float) -> float:
    """The smallest of the values that `share` of them do not exceed."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
