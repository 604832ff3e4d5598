"""How the gateway speaks HTTP/1.1 where uvicorn's own protocol is too trusting or too hasty.

* A request's head must arrive within a deadline and a size, also on a connection that is kept alive.
* An answer given while the client is still sending (a 401 before a large upload) reaches it: the connection is half
  closed and what still comes is read and dropped for a moment (RFC 9112 section 9.6). Closed at once, the kernel would
  answer the incoming bytes with a reset, and the client could lose the answer.
* What is no HTTP at all is refused in the gateway's own envelope.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from converter.common.identifiers import uuid7
from converter.gateway.http.errors import Refusal, envelope
from converter.gateway.http.headers import hardening

HEAD_DEADLINE_S = 10.0
HEAD_MAX_BYTES = 32 * 1024
LINGER_S = 5.0
LINGER_MAX_BYTES = 1024 * 1024 * 1024
"""Time is the limit that counts. A client on asyncio looks for its answer only after its last byte, so on a fast
network a whole body passes; on a slow one a client that does not look is cut off."""


class _LingeringTransport:
    """The connection's transport, except that `close` lets an answer arrive that was given too early."""

    def __init__(self, transport: asyncio.Transport, protocol: GatewayProtocol) -> None:
        self.transport, self._protocol = transport, protocol
        self._closing = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the transport has
        return getattr(self.transport, name)

    def is_closing(self) -> bool:
        return self._closing or self.transport.is_closing()

    def close(self) -> None:
        if not self.is_closing():
            self._closing = True
            self._protocol.close_connection()


class GatewayProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._connection: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._reading_head = True
        self._refused = False
        self._still_dropping: int | None = None
        """Bytes that may still be read and dropped; none while the connection is not lingering."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        """A client has connected (asyncio)."""
        self._connection = transport
        super().connection_made(cast("asyncio.Transport", _LingeringTransport(transport, self)))
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended (asyncio)."""
        self._cancel_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come (asyncio)."""
        if self._still_dropping is not None:
            self._still_dropping -= len(data)
            if self._still_dropping < 0:
                self._drop_connection()
            return
        if self._reading_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._reading_head and self._head_bytes > HEAD_MAX_BYTES:
            self._refuse(Refusal("headers_too_large", details={"limit_bytes": HEAD_MAX_BYTES}))

    def eof_received(self) -> None:
        """The client will send no more (asyncio)."""
        if self._still_dropping is not None:
            self._drop_connection()

    def on_message_begin(self) -> None:
        """The first byte of a request has come (httptools)."""
        self._await_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A request's head has come (httptools)."""
        self._reading_head = False
        self._cancel_deadline()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request's body has come (httptools)."""
        super().on_message_complete()
        self._reading_head, self._head_bytes = True, 0

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed (uvicorn calls this)."""
        self._refuse(Refusal("validation_error", f"{msg.rstrip('.')}.", details={"hint": "Send HTTP/1.1."}))

    def close_connection(self) -> None:
        """Close, or linger first if the client is still sending the body of a request that has its answer."""
        if self._connection is None or self._connection.is_closing():
            return
        cycle = self.cycle
        if self._refused or (cycle and cycle.response_complete and cycle.more_body and not cycle.disconnected):
            self._linger(self._connection)
        else:
            self._connection.close()

    def _linger(self, connection: asyncio.Transport) -> None:
        self._unset_keepalive_if_required()
        self._still_dropping = LINGER_MAX_BYTES
        if connection.can_write_eof():
            connection.write_eof()
        self.flow.resume_reading()
        self._cancel_deadline()
        self._deadline = self.loop.call_later(LINGER_S, self._drop_connection)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _await_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_DEADLINE_S, self._head_is_late)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _head_is_late(self) -> None:
        self._deadline = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            # A pipelined head; the request before it still has to be answered.
            self._await_head()

    def _refuse(self, refusal: Refusal) -> None:
        if self.transport.is_closing():
            return
        if self.cycle and self.cycle.response_started and not self.cycle.response_complete:
            # In the middle of another answer there is no place for this one.
            self.transport.close()
            return
        self._refused = True
        request_id = uuid7()
        body = envelope(refusal, request_id)
        head = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", request_id.encode()),
            *hardening(secure=self.scheme == "https"),
        ]
        lines = [name + b": " + value + b"\r\n" for name, value in [*self.server_state.default_headers, *head]]
        self.transport.write(b"".join([STATUS_LINE[refusal.status], *lines, b"\r\n", body]))
        self.transport.close()
