"""A real redis-server on loopback, for peers that keep their jobs in it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from pipeline import Durability

from converter.devstack.loopback import HOST, free_ports
from converter.devstack.process import Program

FSYNC = {Durability.KILL: "everysec", Durability.POWER: "always"}


class RedisServer(Program):
    """One server with an append-only file in `directory`."""

    def __init__(self, directory: Path, durability: Durability) -> None:
        self._port = free_ports(1)[0]
        self.url = f"redis://{HOST}:{self._port}"
        kept = ("--appendonly", "yes", "--appendfsync", FSYNC[durability], "--save", "", "--dir", str(directory))
        super().__init__(
            "redis-server",
            ["redis-server", "--bind", HOST, "--port", str(self._port), *kept],
            environ={"PATH": os.defpath},
            log=directory / "redis-server.log",
            ready=self._answers,
        )

    async def _answers(self, _pid: int) -> bool:
        try:
            reader, writer = await asyncio.open_connection(HOST, self._port)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return await reader.readline() == b"+PONG\r\n"
        finally:
            writer.close()
