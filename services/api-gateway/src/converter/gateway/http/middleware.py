"""What happens around every request, in plain ASGI: its frame outside the framework, authentication inside.

Neither reads a byte of the body. An answer that is given before the body has been read closes the connection, so that
nobody keeps pushing a file that is not wanted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, cast

from litestar.enums import ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPResponseStartEvent, HTTPScope, Message, Receive, Scope, Send
from prometheus_client import Histogram
from structlog.contextvars import bind_contextvars

from converter.common import logs
from converter.gateway.clients.assertions import UserAssertions
from converter.gateway.clients.rate_limit import RateLimits
from converter.gateway.clients.tokens import Principal, TokenVerifier
from converter.gateway.http.answers import told
from converter.gateway.http.errors import Envelope, Refusal
from converter.gateway.http.headers import Header, Proxies, challenge, hardening, request_id
from converter.gateway.metrics import REQUEST_SECONDS

_ANSWER_HEADERS = "answer_headers"
"""Key of a request's state: what `add_to_answer` has added."""
OVERRIDABLE = "/api/v1/uploads/"
"""Where a client whose network knows only GET and POST may name the method that it means (tus 1.0.0, core)."""
_OVERRIDES = {b"PATCH": "PATCH", b"DELETE": "DELETE", b"HEAD": "GET"}


def add_to_answer(scope: Scope, headers: Iterable[Header]) -> None:
    """Have the answer carry `headers`, also when the request is refused further in."""
    scope["state"].setdefault(_ANSWER_HEADERS, []).extend(headers)


class RequestFrame:
    """The outermost layer: request id, hardening headers, HEAD, the log line, and a last answer when all else fails.

    Args:
        app: what is framed.
        envelope: writes its errors.
        proxies: who may say that a request came over TLS.
    """

    def __init__(self, app: ASGIApp, envelope: Envelope, proxies: Proxies) -> None:
        self._app, self._envelope, self._proxies = app, envelope, proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        http = cast("HTTPScope", scope)  # the server is told to give no other
        exchange = _Exchange(http, receive, send, self._envelope, self._proxies)
        bind_contextvars(request_id=exchange.request_id)
        http["state"].update(request_id=exchange.request_id, envelope=self._envelope)
        if http["method"] == "HEAD":
            # The server drops the body of an answer to HEAD; everything else is as for GET.
            http = cast("HTTPScope", {**http, "method": "GET"})
            http["state"]["head"] = True  # for handlers whose body is costly to make, or has no end
        if http["method"] == "POST" and http["path"].startswith(OVERRIDABLE):
            meant = _OVERRIDES.get(_headers(http).get(b"x-http-method-override", b""), "POST")
            http = cast("HTTPScope", {**http, "method": meant})
        try:
            await self._app(http, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            # The server does this to what is past the grace time when it stops; the request's task ends here.
            if exchange.status is None:
                await exchange.answer(
                    Refusal("service_busy", "The gateway is stopping.", details={"hint": "Send the request again."})
                )
        except Exception as error:  # noqa: BLE001 - of what stands before the framework, or of the framework itself
            refusal = told(error)
            if exchange.status is None:
                await exchange.answer(refusal)
        finally:
            exchange.done(str(http.get("path_template", "")))


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: HTTPScope, receive: Receive, send: Send, envelope: Envelope, proxies: Proxies) -> None:
        self._scope, self._receive, self._send, self._envelope = scope, receive, send, envelope
        self._began = time.perf_counter()
        offered = _headers(scope)
        self.request_id = request_id(offered.get(b"x-request-id"))
        self._hardening = hardening(secure=proxies.client_has_tls(scope, offered))
        self._body_pending = offered.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in offered
        self.status: int | None = None
        self._state = scope["state"]

    async def receive(self) -> Any:  # noqa: ANN401 - one of ASGI's receive events
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            self._body_pending = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self._extra(message)]
        await self._send(message)

    async def answer(self, refusal: Refusal) -> None:
        body = self._envelope(refusal, self.request_id)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            *((name.lower().encode(), value.encode("latin-1")) for name, value in refusal.headers.items()),
        ]
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    def done(self, route: str) -> None:
        """Log and count it; `route` is the path's template, empty for a path that there is not."""
        took_s = time.perf_counter() - self._began
        _timed(self._scope["method"], route, self.status).observe(took_s)
        logs.often(
            "http.request",
            method=self._scope["method"],
            path=_loggable(self._scope["path"]),
            status=self.status,
            duration_ms=round(took_s * 1000, 1),
        )

    def _extra(self, message: HTTPResponseStartEvent) -> list[Header]:
        extra = [(b"x-request-id", self.request_id.encode()), *self._hardening, *self._state.get(_ANSWER_HEADERS, ())]
        if self._body_pending:
            extra.append((b"connection", b"close"))
        present = {name for name, _ in message["headers"]}
        return [header for header in extra if header[0] not in present]


class Methods(ASGIMiddleware):
    """Answers OPTIONS with all methods of a path; the framework knows only those of one handler.

    Args:
        handlers: all that are served. A path whose handler takes OPTIONS itself answers with more.
    """

    scopes = (ScopeType.HTTP,)

    def __init__(self, handlers: Iterable[HTTPRouteHandler]) -> None:
        self._methods: dict[str, set[str]] = {}
        for handler in handlers:
            for path in handler.paths:
                methods = self._methods.setdefault(path, {"OPTIONS"})
                methods |= handler.http_methods | ({"HEAD"} if "GET" in handler.http_methods else set())

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Answer the request, or pass it on."""
        if scope["method"] != "OPTIONS":  # type: ignore[typeddict-item]  # HTTP only
            await next_app(scope, receive, send)
            return
        handler = scope["route_handler"]
        (path,) = handler.paths
        headers = [(b"allow", ", ".join(sorted(self._methods[path])).encode()), (b"cache-control", b"no-store")]
        if "requires" in handler.opt:
            add_to_answer(scope, headers)
            await next_app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Authentication(ASGIMiddleware):
    """Lets a request pass to its handler when its token is valid here and grants the handler's scope.

    A handler says what it needs by `opt={"requires": "read"}` or `"write"`, or `None` when anybody may ask. One that
    says nothing is not served, so that forgetting it opens nothing.

    Args:
        verifier: checks tokens.
        limits: counts the requests of each client.
        scopes: the token scope that stands for each need.
        tenant_id: the tenant that tokens must belong to; empty for any.
        assertions: tells for which user a request is.
    """

    scopes = (ScopeType.HTTP,)

    def __init__(
        self,
        verifier: TokenVerifier,
        limits: RateLimits,
        scopes: dict[str, str],
        tenant_id: str,
        assertions: UserAssertions,
    ) -> None:
        self._verifier, self._limits, self._granting, self._tenant_id = verifier, limits, scopes, tenant_id
        self._assertions = assertions

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Authenticate one request.

        Raises:
            Refusal: 401, 403 or 429.
            KeysUnavailable: tokens cannot be checked.
        """
        if scope["method"] != "OPTIONS":  # type: ignore[typeddict-item]  # answered by the framework from its routes
            need = scope["route_handler"].opt["requires"]
            if need is not None:
                scope["user"], scope["auth"] = await self.admit(scope, need), None
        await next_app(scope, receive, send)

    async def admit(self, scope: Scope, need: str) -> Principal:
        """Who asks, if it may.

        Raises:
            Refusal, KeysUnavailable: as `handle` does.
        """
        principal = await self._verifier.verify(_bearer_token(scope))
        bind_contextvars(client_id=principal.client_id)
        await self._count(principal, scope)
        self._authorise(principal, self._granting[need])
        return self._assertions.bind(principal, scope["headers"])

    async def _count(self, principal: Principal, scope: Scope) -> None:
        standing = await self._limits.take(principal.client_id)
        add_to_answer(scope, standing.headers())
        if not standing.accepted:
            raise Refusal("rate_limit_exceeded", headers={"Retry-After": str(standing.reset_s)})

    def _authorise(self, principal: Principal, needed: str) -> None:
        if needed not in principal.scopes:
            raise Refusal(
                "insufficient_scope",
                f"The token does not grant {needed}.",
                details={"required_scope": needed, "provided_scopes": sorted(principal.scopes)},
                headers={"WWW-Authenticate": challenge("insufficient_scope", scope=needed)},
            )
        if self._tenant_id and principal.tenant_id != self._tenant_id:
            raise Refusal("tenant_mismatch", headers={"WWW-Authenticate": challenge("insufficient_scope")})


@lru_cache(maxsize=1024)
def _timed(method: str, route: str, status: int | None) -> Histogram:
    return REQUEST_SECONDS.labels(method, route, status)


def _loggable(path: str) -> str:
    """`path` without a download link's token, which is all that is needed to use it."""
    head, link, _ = path.partition("/downloads/")
    return f"{head}{link}…" if link else path


def _bearer_token(scope: Scope) -> str:
    sent = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, token = (sent[0] if len(sent) == 1 else b"").partition(b" ")
    if scheme.lower() != b"bearer" or not token.strip():
        found = "Several Authorization headers were sent." if len(sent) > 1 else "No bearer token was sent."
        raise Refusal("invalid_token", found, headers={"WWW-Authenticate": challenge()})
    return token.strip().decode("latin-1")


def _headers(scope: Scope) -> dict[bytes, bytes]:
    return dict(scope["headers"])
