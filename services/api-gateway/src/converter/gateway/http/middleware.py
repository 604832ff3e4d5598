"""What happens around every request, in plain ASGI: its frame outside the framework, authentication inside.

Neither reads a byte of the body. An answer that is given before the body has been read closes the connection, so that
nobody keeps pushing a file that is not wanted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, cast

import structlog
from litestar.enums import ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPResponseStartEvent, HTTPScope, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars

from converter.gateway.clients.rate_limit import RateLimits
from converter.gateway.clients.tokens import Principal, TokenVerifier
from converter.gateway.http.errors import Refusal, envelope
from converter.gateway.http.headers import Header, hardening, request_id

log = structlog.get_logger()

REALM = "kneron-model-converter"
ANSWER_HEADERS = "answer_headers"
"""Key of a request's state: headers that its answer carries, also when it is refused further in."""


OVERRIDABLE = "/api/v1/uploads/"
"""Where a client whose network knows only GET and POST may name the method that it means (tus 1.0.0, core)."""
_OVERRIDES = {b"PATCH": "PATCH", b"DELETE": "DELETE", b"HEAD": "GET"}


class RequestFrame:
    """The outermost layer: request id, hardening headers, HEAD, the log line, and a last answer when all else fails."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        http = cast("HTTPScope", scope)  # the server is told to give no other
        exchange = _Exchange(http, receive, send)
        clear_contextvars()
        bind_contextvars(request_id=exchange.request_id)
        http["state"]["request_id"] = exchange.request_id
        if http["method"] == "HEAD":
            # The server drops the body of an answer to HEAD; everything else is as for GET.
            http = cast("HTTPScope", {**http, "method": "GET"})
        if http["method"] == "POST" and http["path"].startswith(OVERRIDABLE):
            meant = _OVERRIDES.get(_headers(http).get(b"x-http-method-override", b""), "POST")
            http = cast("HTTPScope", {**http, "method": meant})
            http["state"]["head"] = True  # for a handler to whom the body is dear
        try:
            await self._app(http, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            # The server does this to what is past the grace time when it stops; the request's task ends here.
            if exchange.status is None:
                await exchange.answer(
                    Refusal("service_busy", "The gateway is stopping.", details={"hint": "Send the request again."})
                )
        except Exception:
            log.exception("http.failed", method=http["method"], path=_loggable(http["path"]))
            if exchange.status is None:
                await exchange.answer(Refusal("internal_error"))
        finally:
            exchange.log()


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._began = time.perf_counter()
        offered = _headers(scope)
        self.request_id = request_id(offered.get(b"x-request-id"))
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
        body = envelope(refusal, self.request_id)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    def log(self) -> None:
        log.info(
            "http.request",
            method=self._scope["method"],
            path=_loggable(self._scope["path"]),
            status=self.status,
            duration_ms=round((time.perf_counter() - self._began) * 1000, 1),
        )

    def _extra(self, message: HTTPResponseStartEvent) -> list[Header]:
        present = {name.lower() for name, _ in message["headers"]}
        extra = [(b"x-request-id", self.request_id.encode()), *hardening(secure=self._scope["scheme"] == "https")]
        extra += self._state.get(ANSWER_HEADERS, [])
        if self._body_pending:
            extra.append((b"connection", b"close"))
        return [header for header in extra if header[0] not in present]


class Methods(ASGIMiddleware):
    """Answers OPTIONS with all methods of a path; the framework knows only those of one handler.

    Args:
        handlers: all that are served. A path whose handler takes OPTIONS itself is left to it.
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
        handler = scope["route_handler"]
        if scope["method"] != "OPTIONS" or "requires" in handler.opt:  # type: ignore[typeddict-item]  # HTTP only
            await next_app(scope, receive, send)
            return
        (path,) = handler.paths
        headers = [(b"allow", ", ".join(sorted(self._methods[path])).encode()), (b"cache-control", b"no-store")]
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
    """

    scopes = (ScopeType.HTTP,)

    def __init__(self, verifier: TokenVerifier, limits: RateLimits, scopes: dict[str, str], tenant_id: str) -> None:
        self._verifier, self._limits, self._granting, self._tenant_id = verifier, limits, scopes, tenant_id

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Authenticate one request.

        Raises:
            Refusal: 401, 403 or 429.
            KeysUnavailable: tokens cannot be checked.
        """
        if scope["method"] != "OPTIONS":  # type: ignore[typeddict-item]  # answered by the framework from its routes
            need = scope["route_handler"].opt["requires"]
            if need is not None:
                principal = await self._verifier.verify(_bearer_token(scope))
                bind_contextvars(client_id=principal.client_id)
                await self._count(principal, scope)
                self._authorise(principal, self._granting[need])
                scope["user"], scope["auth"] = principal, None
        await next_app(scope, receive, send)

    async def _count(self, principal: Principal, scope: Scope) -> None:
        standing = await self._limits.take(principal.client_id)
        scope["state"][ANSWER_HEADERS] = standing.headers()
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


def challenge(error: str | None = None, **facts: str) -> str:
    """The value of `WWW-Authenticate` (RFC 6750 section 3); no `error` when the request carried no token."""
    parameters = {"realm": REALM, **({"error": error} if error else {}), **facts}
    return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in parameters.items())


def _loggable(path: str) -> str:
    """`path` without a download link's token, which is all that is needed to use it."""
    head, link, _ = path.partition("/downloads/")
    return f"{head}{link}…" if link else path


def _bearer_token(scope: Scope) -> str:
    sent = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, token = (sent[0] if len(sent) == 1 else b"").partition(b" ")
    if scheme.lower() != b"bearer" or not token.strip():
        found = "several Authorization headers" if len(sent) > 1 else "no bearer token"
        raise Refusal(
            "invalid_token",
            f"A bearer token is needed; found {found}.",
            headers={"WWW-Authenticate": challenge()},
        )
    return token.strip().decode("latin-1")


def _headers(scope: Scope) -> dict[bytes, bytes]:
    return dict(scope["headers"])
