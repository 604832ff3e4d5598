"""The gateway's faces, each on a listener of its own, until the service is told to stop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog
import uvicorn
from litestar.types import ASGIApp

from converter.common.service import Unreachable
from converter.gateway.http.protocol import GatewayProtocol

log = structlog.get_logger()

BACKLOG = 1024
IDLE_S = 20
"""How long a connection may wait for its next request. Clients keep theirs for 5 s (httpx) or 15 s (aiohttp): who sends
a POST in the moment in which the other side closes does not learn what has become of it."""
TIDY_UP_S = 30.0

Face = tuple[ASGIApp, type[GatewayProtocol], socket.socket]
"""What is served, how its connections speak, and where."""


class _Server(uvicorn.Server):
    """uvicorn, but the process's signals are the service's business, and it leaves no request half tidied up."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        # What is past the grace time has been cancelled; an upload still has to be taken back from the storage.
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=TIDY_UP_S)


async def serve(faces: Sequence[Face], stop: asyncio.Event, *, grace_s: int) -> None:
    """Serve each face on its socket until `stop`, then for `grace_s` what is under way."""
    servers = []
    async with asyncio.TaskGroup() as serving:
        for app, protocol, listener in faces:
            server = _Server(_config(app, protocol, grace_s))
            servers.append(server)
            serving.create_task(server.serve(sockets=[listener]))
        await stop.wait()
        for server in servers:
            server.should_exit = True


def _config(app: ASGIApp, protocol: type[GatewayProtocol], grace_s: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # what is taken from a proxy is in `Proxies`
        backlog=BACKLOG,
        reset_contextvars=True,  # or a request on a kept connection would log what the one before it has bound
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=grace_s,
    )


def listener(face: str, host: str, port: int) -> socket.socket:
    """A socket that takes connections from now on; who connects before `serve` waits.

    Raises:
        Unreachable: the address cannot be listened on.
    """
    try:
        listener = socket.create_server((host, port), backlog=BACKLOG)
    except OSError as error:
        raise Unreachable("an address to listen on", f"{host}:{port}", error.strerror or str(error)) from error
    log.info("http.listening", face=face, host=listener.getsockname()[0], port=listener.getsockname()[1])
    return listener
