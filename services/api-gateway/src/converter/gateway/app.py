"""The two faces of the gateway as ASGI applications, built from what they are given."""

from __future__ import annotations

from collections.abc import Sequence

from litestar import Litestar
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Middleware

from converter.gateway.answers import refused
from converter.gateway.gateway import Gateway
from converter.gateway.health import Health, get_health, get_liveness, get_readiness
from converter.gateway.jobs import create_job, get_job, list_jobs
from converter.gateway.middleware import Authentication, RequestFrame
from converter.gateway.promotions import promote

HEALTH = (get_health, get_liveness, get_readiness)


def create_app(gateway: Gateway, health: Health, authentication: Authentication) -> ASGIApp:
    """The public face: `/api/v1` and `/health`. Anything else is a 404."""
    return _framed(
        [create_job, list_jobs, get_job, promote, *HEALTH],
        {"gateway": _given(gateway), "health": _given(health)},
        [authentication],
    )


def create_internal_app(health: Health) -> ASGIApp:
    """The face that only operators reach."""
    return _framed([*HEALTH], {"health": _given(health)}, [])


def _framed(
    handlers: Sequence[HTTPRouteHandler], dependencies: dict[str, Provide], middleware: Sequence[Middleware]
) -> ASGIApp:
    app = Litestar(
        handlers,
        dependencies=dependencies,
        middleware=middleware,
        exception_handlers={Exception: refused},
        openapi_config=None,
        logging_config=None,  # the service has set up its logs
        request_max_body_size=None,  # handlers read bodies themselves, each with its own limit
    )
    return RequestFrame(app)


def _given(value: object) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)
