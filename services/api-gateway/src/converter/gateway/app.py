"""The two faces of the gateway as ASGI applications, built from what they are given."""

from __future__ import annotations

from collections.abc import Sequence

from litestar import Litestar
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Middleware

from converter.gateway.endpoints.cancellation import cancel_job, delete_job
from converter.gateway.endpoints.creation import create_job
from converter.gateway.endpoints.downloads import create_download_link, download
from converter.gateway.endpoints.events import get_events
from converter.gateway.endpoints.jobs import get_job, list_jobs
from converter.gateway.endpoints.logs import get_logs
from converter.gateway.endpoints.promotions import promote
from converter.gateway.endpoints.reports import get_report
from converter.gateway.endpoints.tus import UPLOADS
from converter.gateway.gateway import Gateway
from converter.gateway.health import Health, get_health, get_liveness, get_readiness
from converter.gateway.http.answers import refused
from converter.gateway.http.middleware import Authentication, Methods, RequestFrame
from converter.gateway.openapi.document import Security, document
from converter.gateway.openapi.page import Published, get_docs, get_openapi

JOBS = (
    create_job,
    list_jobs,
    get_job,
    promote,
    cancel_job,
    delete_job,
    create_download_link,
    download,
    get_events,
    get_report,
    get_logs,
)
HEALTH = (get_health, get_liveness, get_readiness)


PUBLIC = (*JOBS, *UPLOADS, *HEALTH, get_openapi, get_docs)


def create_app(gateway: Gateway, health: Health, authentication: Authentication, security: Security) -> ASGIApp:
    """The public face: `/api/v1`, `/health` and `/openapi`. Anything else is a 404."""
    published = Published.of(document(PUBLIC, security))
    return _framed(
        PUBLIC,
        {"gateway": _given(gateway), "health": _given(health), "published": _given(published)},
        [Methods(PUBLIC), authentication],
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
