"""The gateway service: one process, a public and an internal listener."""

from __future__ import annotations

import asyncio
import math
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from functools import partial

import httpx
import structlog
import uvicorn
from litestar.types import ASGIApp

from converter.common import service
from converter.common.background import background
from converter.common.bus import Bus
from converter.common.consumer import consume, heartbeat_s
from converter.common.eventlog import JobLog
from converter.common.idempotency import IdempotencyKeys
from converter.common.service import Unreachable
from converter.common.settings import Problem, SettingsError
from converter.common.storage import ArtifactStore, must_work, open_store
from converter.common.topology import DEADLINES, EVENTS, TIMERS
from converter.common.users import ActiveJobs, UserJobs
from converter.gateway.app import create_app, create_internal_app
from converter.gateway.clients.jwks import JwksCache, JwksTuning
from converter.gateway.clients.rate_limit import RateLimits
from converter.gateway.clients.tokens import TokenPolicy, TokenVerifier
from converter.gateway.deadlines import Deadlines
from converter.gateway.endpoints.links import DownloadLinks
from converter.gateway.endpoints.paging import Cursors
from converter.gateway.gateway import Gateway, UploadSlots
from converter.gateway.health import Health, stages_at_work, take_write
from converter.gateway.http.body import Pace
from converter.gateway.http.middleware import Authentication
from converter.gateway.http.protocol import GatewayProtocol
from converter.gateway.intake.form import IntakeLimits
from converter.gateway.intake.found_model import NamedModels
from converter.gateway.live import Live
from converter.gateway.openapi.document import Security
from converter.gateway.past_runs import PastRuns
from converter.gateway.queues import Queues
from converter.gateway.sent_models import SentModels
from converter.gateway.settings import GatewaySettings
from converter.gateway.uploads import Uploads

log = structlog.get_logger()

BACKLOG = 1024
DEADLINES_AT_ONCE = 4
TIDY_UP_S = 30.0


class _Server(uvicorn.Server):
    """uvicorn, but the process's signals are the service's business, and it leaves no request half tidied up."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        # What is past the grace time has been cancelled; an upload still has to be taken back from the storage.
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=TIDY_UP_S)


async def main(settings: GatewaySettings, stop: asyncio.Event) -> None:
    """Serve until `stop`, then let what is under way end.

    Raises:
        Unreachable: NATS, or an address to listen on.
    """
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(await Bus.connect(settings.nats, name="api-gateway", on_lost=service.die))
        store = await stack.enter_async_context(open_store(settings.storage))
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=5.0))
        jwks = JwksCache(
            settings.member_center_jwks_url,
            http,
            tuning=JwksTuning(max_age=settings.jwks_cache_max_age_ms / 1000, cooldown=settings.jwks_cooldown_ms / 1000),
        )
        stack.push_async_callback(jwks.close)
        health = Health(
            {
                "nats": partial(take_write, bus),
                "object_storage": store.probe,
                "member_center": jwks.check,
                "file_access_agent": partial(_reach, http, settings.file_store.file_access_agent_base_url),
            },
            partial(stages_at_work, bus),
            refresh_s=settings.health_refresh_ms / 1000,
        )
        await health.refresh()
        await heartbeat_s(bus, TIMERS, DEADLINES)
        await _require_retention(bus, settings)
        await must_work(store)
        await service.must_listen("the issuer", settings.member_center_jwks_url)
        live, past_runs = Live(bus, stop), PastRuns()
        await stack.enter_async_context(past_runs.heard(bus))
        await stack.enter_async_context(live.listening())
        gateway = _gateway(settings, bus, store, live, past_runs)
        sweep_interval_s = settings.upload_sweep_interval_s
        await stack.enter_async_context(background(lambda: gateway.uploads.keep_swept(sweep_interval_s)))
        public = create_app(gateway, health, _authentication(settings, jwks, bus), _security(settings))
        faces = [
            (public, _listener("public", settings.host, settings.port)),
            (create_internal_app(health), _listener("internal", settings.internal_host, settings.internal_port)),
        ]
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(health.keep_fresh())
            expire = Deadlines(gateway.job_log).handle
            tasks.create_task(consume(bus, TIMERS, DEADLINES, expire, concurrency=DEADLINES_AT_ONCE, stop=stop))
            await _serve(faces, stop, grace_s=settings.shutdown_grace_seconds)
            watching.cancel()


def _security(settings: GatewaySettings) -> Security:
    return Security(
        token_url=settings.oauth_client.member_center_token_url,
        read=settings.converter_scope_read,
        write=settings.converter_scope_write,
    )


async def _reach(http: httpx.AsyncClient, url: str) -> None:
    answer = await http.get(url)
    if answer.is_server_error:  # anything else shows that the file store itself is there
        raise Unreachable("the file store", url, f"HTTP {answer.status_code}")


def _gateway(settings: GatewaySettings, bus: Bus, store: ArtifactStore, live: Live, past_runs: PastRuns) -> Gateway:
    job_log = JobLog(bus, "api-gateway")
    grace = timedelta(seconds=settings.claim_grace_s)
    uploads = Uploads(store, timedelta(hours=settings.resumable_upload_ttl_hours))
    sent_models = SentModels(bus, store)
    signing_key = (settings.signing_key.reveal() or secrets.token_hex()).encode()
    return Gateway(
        bus=bus,
        store=store,
        job_log=job_log,
        active_jobs=ActiveJobs(bus, job_log, grace=grace),
        user_jobs=UserJobs(bus),
        live=live,
        queues=Queues(bus, job_log, past_runs),
        cursors=Cursors(signing_key),
        links=DownloadLinks(signing_key, timedelta(seconds=settings.download_link_ttl_s)),
        idempotency_keys=IdempotencyKeys(bus, job_log, grace=grace),
        sent_models=sent_models,
        named_models=NamedModels(store, uploads, sent_models, settings.multipart_model_max_bytes),
        uploads=uploads,
        upload_slots=UploadSlots(settings.max_concurrent_uploads, settings.upload_retry_after_seconds),
        limits=IntakeLimits(
            model_max_bytes=settings.multipart_model_max_bytes,
            image_max_bytes=settings.multipart_ref_image_max_bytes,
            images_max_count=settings.multipart_ref_images_max_count,
        ),
        pace=Pace(),
        job_deadline=timedelta(hours=settings.job_deadline_hours),
        artifact_ttl=timedelta(days=settings.artifact_ttl_days),
        promote_timeout=timedelta(milliseconds=settings.promote_timeout_ms),
        public_base_url=settings.public_base_url.rstrip("/"),
    )


def _authentication(settings: GatewaySettings, jwks: JwksCache, bus: Bus) -> Authentication:
    policy = TokenPolicy(
        issuer=settings.member_center_issuer,
        audience=settings.kneron_converter_audience,
        leeway_s=settings.jwt_clock_tolerance_sec,
        typ=settings.jwt_typ,
    )
    scopes = {"read": settings.converter_scope_read, "write": settings.converter_scope_write}
    limits = RateLimits(bus, limit=settings.api_v1_rate_limit_max, window_ms=settings.api_v1_rate_limit_window_ms)
    return Authentication(TokenVerifier(jwks, policy), limits, scopes, settings.converter_tenant_id)


async def _serve(faces: Sequence[tuple[ASGIApp, socket.socket]], stop: asyncio.Event, *, grace_s: int) -> None:
    """Serve each face on its socket until `stop`, then for `grace_s` what is under way."""
    servers = []
    async with asyncio.TaskGroup() as serving:
        for app, listener in faces:
            server = _Server(_config(app, grace_s))
            servers.append(server)
            serving.create_task(server.serve(sockets=[listener]))
        await stop.wait()
        for server in servers:
            server.should_exit = True


def _config(app: ASGIApp, grace_s: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=GatewayProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=grace_s,
    )


def _listener(face: str, host: str, port: int) -> socket.socket:
    try:
        listener = socket.create_server((host, port), backlog=BACKLOG)
    except OSError as error:
        raise Unreachable("an address to listen on", f"{host}:{port}", error.strerror or str(error)) from error
    log.info("http.listening", face=face, host=listener.getsockname()[0], port=listener.getsockname()[1])
    return listener


async def _require_retention(bus: Bus, settings: GatewaySettings) -> None:
    """A job's events must outlive its artifacts, or its state would be forgotten before they are gone.

    Raises:
        SettingsError: they would not.
    """
    kept = timedelta(microseconds=(await bus.api(f"STREAM.INFO.{EVENTS}"))["config"]["max_age"] / 1000)
    needed = timedelta(days=settings.artifact_ttl_days + 1, hours=settings.job_deadline_hours) + timedelta(
        milliseconds=settings.promote_timeout_ms
    )
    if kept and kept < needed:
        allowed = f"less; or provision with EVENTS_RETENTION_DAYS={math.ceil(needed / timedelta(days=1))}"
        found = f"found {settings.artifact_ttl_days}, but events are kept for {kept / timedelta(days=1):g} days"
        raise SettingsError([Problem("ARTIFACT_TTL_DAYS", found, allowed)])


if __name__ == "__main__":
    service.run("api-gateway", GatewaySettings, main)
