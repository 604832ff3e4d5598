"""The two faces of the gateway as ASGI applications, built from what they are given."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from litestar import Litestar
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Middleware

from converter.gateway.endpoints.cancellation import cancel_job, delete_job
from converter.gateway.endpoints.creation import create_job
from converter.gateway.endpoints.downloads import create_download_link, download
from converter.gateway.endpoints.events import get_events
from converter.gateway.endpoints.jobs import Looks, get_job, list_jobs
from converter.gateway.endpoints.logs import get_logs
from converter.gateway.endpoints.promotions import promote
from converter.gateway.endpoints.reports import get_report
from converter.gateway.endpoints.tus import UPLOADS, NamedProtocol
from converter.gateway.gateway import Gateway
from converter.gateway.health import Health, get_health, get_liveness, get_readiness
from converter.gateway.http.answers import refused
from converter.gateway.http.errors import envelope, older_envelope
from converter.gateway.http.headers import Proxies
from converter.gateway.http.middleware import Authentication, Methods, RequestFrame
from converter.gateway.index import JobIndex
from converter.gateway.internal.assets import Assets, get_asset, get_page
from converter.gateway.internal.downloads import download_file
from converter.gateway.internal.events import follow_job
from converter.gateway.internal.face import AsOperators, for_operators
from converter.gateway.internal.guard import SameSite
from converter.gateway.internal.jobs import list_all_jobs
from converter.gateway.internal.metrics import get_metrics
from converter.gateway.internal.options import get_options
from converter.gateway.internal.queues import get_queue_stats
from converter.gateway.internal.retry import retry_job
from converter.gateway.openapi.document import document
from converter.gateway.openapi.faces import Security, internal_face, public_face
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
OF_BOTH = (*HEALTH, get_openapi, get_docs)
PUBLIC = (*JOBS, *UPLOADS, *OF_BOTH)
INTERNAL = (
    *(
        for_operators(handler)
        for handler in (create_job, get_job, promote, cancel_job, delete_job, get_report, get_logs)
    ),
    list_all_jobs,
    retry_job,
    follow_job,
    download_file,
    get_queue_stats,
    get_options,
    get_metrics,
    *OF_BOTH,
    get_page,
    get_asset,
)


def create_app(
    gateway: Gateway, health: Health, authentication: Authentication, security: Security, proxies: Proxies
) -> ASGIApp:
    """The public face: `/api/v1`, `/health` and `/openapi`. Anything else is a 404."""
    published = Published.of(document(PUBLIC, public_face(security)))
    app = _routed(
        PUBLIC,
        {"gateway": _given(gateway), "health": _given(health), "published": _given(published)},
        [Methods(PUBLIC), authentication],
    )
    return RequestFrame(Looks(NamedProtocol(app), gateway, authentication), envelope, proxies)


def create_internal_app(
    gateway: Gateway, health: Health, index: JobIndex, assets: Assets, allowed_hosts: Collection[str]
) -> ASGIApp:
    """The face that only operators reach: `/jobs`, `/queues/stats`, `/options`, `/health`, `/openapi` and the page."""
    given = {"gateway": gateway, "health": health, "index": index, "assets": assets}
    given["published"] = Published.of(document(INTERNAL, internal_face()))
    app = _routed(INTERNAL, {name: _given(value) for name, value in given.items()}, [Methods(INTERNAL), AsOperators()])
    return RequestFrame(SameSite(app, allowed_hosts), older_envelope, Proxies("none"))


def _routed(
    handlers: Sequence[HTTPRouteHandler], dependencies: dict[str, Provide], middleware: Sequence[Middleware]
) -> Litestar:
    return Litestar(
        handlers,
        dependencies=dependencies,
        middleware=middleware,
        exception_handlers={Exception: refused},
        openapi_config=None,
        logging_config=None,  # the service has set up its logs
        request_max_body_size=None,  # handlers read bodies themselves, each with its own limit
    )


def _given(value: object) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)
