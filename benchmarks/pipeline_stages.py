"""What both of our pipelines have: their streams, a process for each stage, and a count of what was written."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from converter.common.bus import Bus
from converter.common.provision import provision
from converter.common.settings import NatsSettings
from converter.common.topology import EVENTS, JOB_STATE, Tuning, bucket_stream
from converter.contracts.job import STAGES
from converter.devstack.process import die_with


@asynccontextmanager
async def staged(url: str, program: Path, *arguments: str, environ: Mapping[str, str]) -> AsyncIterator[Bus]:
    """Run `program STAGE ARGUMENTS…` for each stage while the context is open, on streams that are made first."""
    async with await Bus.connect(NatsSettings(nats_url=url), name="benchmark") as bus, AsyncExitStack() as stages:
        await provision(bus, Tuning())
        for stage in STAGES:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(program), stage, *arguments),
                env=os.environ | environ,
                stdout=sys.stderr,
                preexec_fn=partial(die_with, os.getpid()),
            )
            stages.push_async_callback(process.wait)
            stages.callback(process.terminate)
        yield bus


async def durable_writes(bus: Bus) -> int:
    """Messages that the server has put on the disk: the events, and its own projection of them."""
    return sum([await bus.last_sequence(stream) for stream in (EVENTS, bucket_stream(JOB_STATE))])
