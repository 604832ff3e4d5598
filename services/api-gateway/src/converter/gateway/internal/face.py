"""What makes an endpoint of the public face one of the internal face."""

from __future__ import annotations

from litestar.enums import ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send
from msgspec.structs import replace

from converter.gateway.intake.options import USER_FIELD
from converter.gateway.internal.operators import OperatorJob, Operators
from converter.gateway.openapi.documentation import Operation
from converter.gateway.representation import JobResource

PUBLIC_ROOT = "/api/v1"


class AsOperators(ASGIMiddleware):
    """Whoever asks here is an operator: there is nothing to check."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass the request on."""
        scope["user"], scope["auth"] = Operators(), None
        await next_app(scope, receive, send)


def for_operators(handler: HTTPRouteHandler) -> HTTPRouteHandler:
    """The same handler outside `/api/v1`, for anybody who reaches it."""
    (path,) = handler.paths
    made = HTTPRouteHandler(
        path.removeprefix(PUBLIC_ROOT),
        http_method=sorted(handler.http_methods),
        opt={"requires": None, "operation": _without_users(handler.opt["operation"])},
        media_type=handler.media_type,
        status_code=handler.status_code,
    )
    return made(handler.fn)


def _without_users(operation: Operation) -> Operation:
    """The operation on the internal face: it shows jobs in the older words, and they have no users."""
    answers = {
        status: replace(answer, body=OperatorJob) if answer.body is JobResource else answer
        for status, answer in operation.answers.items()
    }
    refusals = tuple(code for code in operation.refusals if code != "user_has_active_job")
    body = operation.body
    if body and not isinstance(body.schema, type) and USER_FIELD in body.schema["properties"]:
        form = body.schema
        properties = {name: schema for name, schema in form["properties"].items() if name != USER_FIELD}
        required = [name for name in form["required"] if name != USER_FIELD]
        body = replace(body, schema=form | {"properties": properties, "required": required})
    return replace(operation, answers=answers, refusals=refusals, body=body)
