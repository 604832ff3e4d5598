"""A nats-server as compose.yaml keeps one: asked by the shipped health check, and started again when it ends."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from converter.common.background import background
from converter.devstack.loopback import free_ports
from converter.devstack.nats_server import NatsServer
from converter.devstack.supervisor import Supervisor

HEALTH = Path(__file__).parents[2] / "deploy" / "nats-health.sh"
LOOK_EVERY_S = 0.5
NAME = "nats"


@asynccontextmanager
async def looked_after(directory: Path, programs: Path, watching: asyncio.Event) -> AsyncIterator[NatsServer]:
    """Such a server.

    Args:
        directory: the server's.
        programs: an empty directory; it gets what the check needs, as the server's image has it.
        watching: the check is made while it is set.
    """
    (programs / "nc").symlink_to(str(shutil.which("busybox")))
    (monitoring,) = free_ports(1)
    server = NatsServer(directory, more=f"http: 127.0.0.1:{monitoring}\n")
    keeper = Supervisor(lambda: None, lambda _: None)

    async def look() -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await watching.wait()
            if pid := keeper.pids.get(NAME):
                check = await asyncio.create_subprocess_exec(
                    *("busybox", "sh", HEALTH, str(monitoring), str(pid)),
                    env={"PATH": f"{programs}:{os.defpath}"},
                )
                await check.wait()

    await keeper.start(NAME, server)
    try:
        async with background(look):
            yield server
    finally:
        await keeper.stop([NAME], gently=False)
