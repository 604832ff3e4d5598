"""Ports of this machine alone."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from typing import Self
from urllib.parse import urlsplit

HOST = "127.0.0.1"


def origin(port: int) -> str:
    """The address of an HTTP server on `port`."""
    return f"http://{HOST}:{port}"


async def http_status(url: str, *, timeout_s: float = 2.0) -> int | None:
    """The status that a GET of `url` (http, no user) is answered with, if it is answered."""
    parts = urlsplit(url)
    request = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
            try:
                writer.write(request.encode())
                status_line = (await reader.readline()).split()
            finally:
                writer.close()
    except (TimeoutError, OSError):
        return None
    return int(status_line[1]) if len(status_line) > 1 else None


def free_ports(count: int) -> list[int]:
    """Different free TCP ports, below the range from which the kernel gives ports to outgoing connections."""
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        while len(ports) < count:
            port = 10_000 + secrets.randbelow(20_000)
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                ports.append(port)
    return ports


class ReservedPorts:
    """Ports that nobody else is given while the context is open, also while the server meant for one is down.

    A socket that is bound but does not listen keeps a port from programs that ask for any free one, and from outgoing
    connections, yet lets a server in that sets SO_REUSEADDR, as servers do on Linux. Other stacks are kept off by a
    name in the abstract socket namespace (unix(7)). The kernel takes both back when the process ends, however it ends.
    """

    def __init__(self) -> None:
        self._holders: list[socket.socket] = []

    def take(self, preferred: int = 0) -> int:
        """`preferred` if nobody has it, else a free port.

        Raises:
            OSError: there is no free port.
        """
        try:
            return self._hold(preferred)
        except OSError:
            return self._hold(0)

    def _hold(self, port: int) -> int:
        with contextlib.ExitStack() as opened:
            holder = opened.enter_context(socket.socket())
            # For a port by number before the bind: else connections of the last run would keep it for a minute more.
            # For any port after it: else the kernel may choose one that another stack holds.
            if port:
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind((HOST, port))
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            got = int(holder.getsockname()[1])
            claim = opened.enter_context(socket.socket(socket.AF_UNIX))
            claim.bind(f"\0converter-devstack-port-{got}")
            self._holders += [holder, claim]
            opened.pop_all()
        return got

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for holder in self._holders:
            holder.close()
        self._holders.clear()
