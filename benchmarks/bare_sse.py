"""The least that sends server-sent events, on the gateway's own server: what is posted goes to everybody as it is."""

from __future__ import annotations

import asyncio

from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
_FIRST = b"event: first\ndata: {}\n\n"


class Sse:
    """`GET` follows, `POST` tells."""

    def __init__(self) -> None:
        self._told = b""
        self._changed = asyncio.Event()

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] != "http":
            raise TypeError(scope["type"])
        if scope["method"] == "POST":
            message = await receive()
            if message["type"] == "http.request":
                self._told = message["body"]
            self._changed.set()
            self._changed = asyncio.Event()
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        chunk = _FIRST
        while True:
            changed = self._changed
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await changed.wait()
            chunk = self._told


app = Sse()
