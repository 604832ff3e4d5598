"""A span for each request, in the trace that its caller names (W3C trace context)."""

from __future__ import annotations

from typing import cast

from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send
from opentelemetry.trace import SpanKind, StatusCode

from converter.common import tracing

SERVER_ERRORS = 500
PROBES = ("/health", "/metrics")
"""Asked so often that their spans would only be in the way."""


class Traced:
    """The layer around one of the gateway's faces; only there when traces are sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        http = cast("HTTPScope", scope)  # the server is told to give no other
        if http["path"].startswith(PROBES):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in http["headers"]}
        method = http["method"]
        with tracing.received(headers, method, SpanKind.SERVER, **{"http.request.method": method}) as span:

            async def answer(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    span.set_attribute("http.response.status_code", status)
                    if status >= SERVER_ERRORS:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            await self._app(scope, receive, answer)
            if route := http.get("path_template"):  # the path itself would name jobs and users
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", str(route))
