"""A service that starts conversions which never end, says who they are, and waits to be killed."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path

import psutil
from integration.isolation.bench import Bench, open_bench
from waiting import eventually


async def all_named(bench: Bench) -> bool:
    return len(bench.pids()) == 3


async def main(root: Path) -> None:
    async with open_bench(root) as bench:
        conversions = [
            asyncio.create_task(bench.run("sleeps")),
            asyncio.create_task(bench.run("leaves_children_and_sleeps")),
        ]
        await eventually(partial(all_named, bench))
        warden = psutil.Process(bench.pids()[0]).ppid()
        sys.stdout.write(" ".join(map(str, [warden, *bench.pids()])) + "\n")
        sys.stdout.flush()
        await asyncio.gather(*conversions)


asyncio.run(main(Path(sys.argv[1])))
