"""How a worker shows itself to a monitoring system: `/metrics`, `/health/live` and `/health/ready` on `METRICS_PORT`.

A thread of its own answers, so that a worker whose event loop is stuck is seen to be.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from socketserver import TCPServer, ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import make_wsgi_app

from converter.common.background import Repeated
from converter.common.bus import Bus
from converter.common.service import Unreachable
from converter.common.settings import MonitoringSettings

log = structlog.get_logger()

BEAT_S = 5.0
STALE_S = 60.0
"""A worker whose loop, or whose event bus, has not answered for so long is not well."""
REQUEST_TIMEOUT_S = 10.0

StartResponse = Callable[[str, list[tuple[str, str]]], object]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]
"""PEP 3333."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind, without asking a name server who this host is, as an HTTPServer does while the event loop waits."""
        TCPServer.server_bind(self)
        host, self.server_port = self.socket.getsockname()[:2]
        self.server_name = str(host)
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_TIMEOUT_S

    def log_message(self, *_: object) -> None:
        """Scrapes are not worth a line."""


class _Pulse:
    """When the event loop last came by, on the monotonic clock."""

    def __init__(self) -> None:
        self.at = time.monotonic()

    async def beat(self) -> None:
        self.at = time.monotonic()


@asynccontextmanager
async def monitored(settings: MonitoringSettings, bus: Bus) -> AsyncIterator[None]:
    """Answer monitoring while the context is open.

    Raises:
        Unreachable: the address cannot be listened on.
    """
    pulse = _Pulse()
    host, port = settings.metrics_host, settings.metrics_port
    try:
        server = make_server(host, port, _application(pulse, bus), _Server, _Handler)
    except OSError as error:
        raise Unreachable("an address to listen on", f"{host}:{port}", error.strerror or str(error)) from error
    log.info("http.listening", face="metrics", host=host, port=server.server_port)
    serving = Thread(target=server.serve_forever, name="monitoring", daemon=True)
    serving.start()
    try:
        async with Repeated(pulse.beat, BEAT_S):
            yield
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()


def _application(pulse: _Pulse, bus: Bus) -> Application:
    metrics: Application = make_wsgi_app()

    def answer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                return metrics(environ, start_response)
            case "/health/live":
                well = _is_recent(pulse.at)
            case "/health/ready":
                well = _is_recent(pulse.at) and _is_recent(bus.answered_at)
            case _:
                start_response("404 Not Found", [("Content-Type", "text/plain")])
                return [b"/metrics, /health/live, /health/ready\n"]
        start_response("200 OK" if well else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"well\n" if well else b"not well\n"]

    return answer


def _is_recent(moment: float) -> bool:
    return time.monotonic() - moment < STALE_S
