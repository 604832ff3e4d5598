"""A TCP proxy that breaks connections on purpose."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Self

GARBAGE = b"\x00\xff\r\n\x00"


class Proxy:
    """Stands between a client and the server on `target_port`, which may not be known before the first connection.

    `lose_answers` keeps what the server says from the client, `hold_requests` what the client says from the server;
    `cut` ends every connection. What was held back is never delivered. `change_answers` and `change_requests` replace
    some bytes by others, as many; `garbled` puts garbage into the middle of whatever passes, either way. `bytes_per_s`
    slows each direction of each connection down, `delay_s` has each piece come later. `refusal`, a whole answer, is
    given in the server's place to each new connection whose first request is a PUT or a POST.
    """

    def __init__(self, target_port: int | Callable[[], int]) -> None:
        self._target_port = target_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.lose_answers = False
        self.hold_requests = False
        self.garbled = False
        self.delay_s = 0.0
        self.bytes_per_s: int | None = None
        self.change_answers: tuple[bytes, bytes] = (b"", b"")
        self.change_requests: tuple[bytes, bytes] = (b"", b"")
        self.refusal = b""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def cut(self) -> None:
        """End every connection at once."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun = b""
        if self.refusal:
            begun = await reader.read(65536)
            if begun.startswith((b"PUT ", b"POST ")):
                await self._refuse(reader, writer)
                return
            begun = begun.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)  # no PUT comes after it
        self._writers.add(writer)
        try:
            port = self._target_port if isinstance(self._target_port, int) else self._target_port()
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(server_writer)
        server_writer.write(begun)
        for pump in (
            self._pump(reader, server_writer, "hold_requests", "change_requests"),
            self._pump(server_reader, writer, "lose_answers", "change_answers"),
        ):
            task = asyncio.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(self.refusal)
            while await reader.read(65536):  # until the client, which is still sending, has read it
                pass
        writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, broken: str, changed: str
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(self.bytes_per_s or 65536):
                if self.bytes_per_s:
                    await asyncio.sleep(len(data) / self.bytes_per_s)
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if getattr(self, broken):
                    continue
                if self.garbled:
                    data = data[: len(data) // 2] + GARBAGE + data[len(data) // 2 :]
                found, instead = getattr(self, changed)
                writer.write(data.replace(found, instead) if found else data)
                await writer.drain()
        writer.close()
        self._writers.discard(writer)
