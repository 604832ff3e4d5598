"""How the gateway speaks HTTP/1.1 where uvicorn's own protocol is too trusting or too hasty.

* A request's head must arrive within a deadline and a size, also on a connection that is kept alive.
* An answer given while the client is still sending (a 401 before a large upload) reaches it: the connection is half
  closed and what still comes is read and dropped for a moment (RFC 9112 section 9.6). Closed at once, the kernel would
  answer the incoming bytes with a reset, and the client could lose the answer.
* What is no HTTP at all is refused in the gateway's own envelope, with the parser's words.
* Blanks after a header's value are no part of it (RFC 9110 section 5.5), which the parser leaves to others.
* A body under `Upgrade` is refused: the parser skips it, and the request would be served as if it had none.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from converter.common.identifiers import uuid7
from converter.gateway.http.errors import Refusal, envelope, older_envelope
from converter.gateway.http.headers import hardening

HEAD_DEADLINE_S = 10.0
HEAD_MAX_BYTES = 32 * 1024
LINGER_S = 5.0
LINGER_MAX_BYTES = 1024 * 1024 * 1024
"""Time is the limit that counts. A client on asyncio looks for its answer only after its last byte, so on a fast
network a whole body passes; on a slow one a client that does not look is cut off."""
HELD_MAX_BYTES = 32 * 1024
"""More than this is written at once, so that whoever sends a file notices a connection that is full."""


class _Transport:
    """The connection's transport, but for two things.

    `close` lets an answer arrive that was given early. And the head of an answer is held back for a turn of the event
    loop, so that head and body are written by one system call.
    """

    def __init__(self, transport: asyncio.Transport, protocol: GatewayProtocol) -> None:
        self.transport, self._protocol = transport, protocol
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._closing = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the transport has
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        if not self._held and not data.startswith(b"HTTP/"):  # a piece of a stream has nothing to wait for
            self.transport.write(data)
            return
        if not self._held:
            self._protocol.loop.call_soon(self._flush)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > HELD_MAX_BYTES:
            self._flush()

    def is_closing(self) -> bool:
        return self._closing or self.transport.is_closing()

    def close(self) -> None:
        if not self.is_closing():
            self._closing = True
            self._flush()
            self._protocol.close_connection()

    def _flush(self) -> None:
        if self._held:
            held, self._held, self._held_bytes = self._held, [], 0
            self.transport.writelines(held)


class GatewayProtocol(HttpToolsProtocol):
    """One connection."""

    @staticmethod
    def envelope(refusal: Refusal, request_id: str) -> bytes:
        """The body of a refusal."""
        return envelope(refusal, request_id)

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
        self._reading_head, self._head_begun = True, False
        self._refused = False
        self._still_dropping: int | None = None
        """Bytes that may still be read and dropped; none while requests are read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        """A client has connected (asyncio)."""
        self._connection = transport
        super().connection_made(cast("asyncio.Transport", _Transport(transport, self)))
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
        if self._head_begun or self.cycle is None or self.cycle.response_complete:
            self._await_head()  # only now, since nearly every head comes in one read
        if self._reading_head and self._head_bytes > HEAD_MAX_BYTES:
            self._refuse(Refusal("headers_too_large", details={"limit_bytes": HEAD_MAX_BYTES}))

    def eof_received(self) -> None:
        """The client will send no more (asyncio)."""
        if self._still_dropping is not None:
            self._drop_connection()

    def on_message_begin(self) -> None:
        """The first byte of a request has come (httptools)."""
        self._head_begun = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of a request's head has come (httptools, which leaves the blanks after a value with it)."""
        super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """A request's head has come (httptools)."""
        self._reading_head = self._head_begun = False
        self._cancel_deadline()
        if refusal := self._refusal_of_head():
            self._refuse(refusal)
        if not self._refused:
            super().on_headers_complete()
            if self.parser.should_upgrade():
                self.cycle.keep_alive = False  # the parser reads nothing after it

    def _refusal_of_head(self) -> Refusal | None:
        """Why the head that has come is not served, if it is not."""
        # A head that came in one read is whole before it could be counted.
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_MAX_BYTES:
            return Refusal("headers_too_large", details={"limit_bytes": HEAD_MAX_BYTES})
        names = [name for name, _ in self.headers]
        if self.parser.get_http_version() == "1.1" and names.count(b"host") != 1:
            return _unreadable("A request has one Host header (RFC 9112 section 3.2).", "Send Host, once.")
        has_body = dict(self.headers).get(b"content-length", b"0") != b"0" or b"transfer-encoding" in names
        if has_body and self.parser.should_upgrade():
            return _unreadable("A body cannot follow Upgrade here.", "Send the request without Upgrade, as HTTP/1.1.")
        return None

    def on_body(self, body: bytes) -> None:
        """A piece of a request's body has come (httptools)."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request's body has come (httptools)."""
        if self._refused:
            return
        super().on_message_complete()
        self._reading_head, self._head_bytes = True, 0

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed (uvicorn calls this while it handles the parser's error)."""
        hint = "Send HTTP/1.1 (RFC 9112), plain or behind TLS."
        self._refuse(_unreadable(f"{msg.rstrip('.')}: {sys.exception()}.", hint))

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
        if self.cycle and not self.cycle.response_complete:
            if not self.cycle.more_body:
                # The request before this one is still to be answered, and a refusal now would be taken for its answer
                # (RFC 9112 section 9.3.2). The connection ends with that answer instead; what still comes is dropped.
                self._refused, self.cycle.keep_alive = True, False
                self._still_dropping = LINGER_MAX_BYTES
                return
            if self.cycle.response_started:  # in the middle of an answer there is no place for another
                self.transport.close()
                return
        self._refused = True
        request_id = uuid7()
        body = self.envelope(refusal, request_id)
        head = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
            (b"x-request-id", request_id.encode()),
            *hardening(secure=self.scheme == "https"),
        ]
        lines = [name + b": " + value + b"\r\n" for name, value in [*self.server_state.default_headers, *head]]
        self.transport.write(b"".join([STATUS_LINE[refusal.status], *lines, b"\r\n", body]))
        self.transport.close()


def _unreadable(message: str, hint: str) -> Refusal:
    return Refusal("validation_error", message, details={"hint": hint})


class InternalProtocol(GatewayProtocol):
    """One connection of the internal face."""

    @staticmethod
    def envelope(refusal: Refusal, request_id: str) -> bytes:
        """The body of a refusal."""
        return older_envelope(refusal, request_id)
