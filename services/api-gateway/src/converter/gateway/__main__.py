"""The gateway service: one process, a public and an internal listener."""

from __future__ import annotations

import asyncio
import gc
import math
import secrets
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial

import httpx
import structlog

from converter.common import service
from converter.common.background import background
from converter.common.bus import Bus
from converter.common.consumer import consume, heartbeat_s
from converter.common.eventlog import JobLog
from converter.common.idempotency import IdempotencyKeys
from converter.common.lease import Lease
from converter.common.service import Unreachable
from converter.common.settings import Problem, SettingsError
from converter.common.storage import ArtifactStore, must_work, open_store
from converter.common.topology import DEADLINES, EVENTS, TIMERS
from converter.common.users import ActiveJobs, UserJobs
from converter.gateway.app import create_app, create_internal_app
from converter.gateway.clients.assertions import UserAssertions
from converter.gateway.clients.jwks import JwksCache, JwksTuning
from converter.gateway.clients.rate_limit import RateLimits
from converter.gateway.clients.tokens import TokenPolicy, TokenVerifier
from converter.gateway.deadlines import Deadlines
from converter.gateway.endpoints.links import DownloadLinks
from converter.gateway.endpoints.paging import Cursors
from converter.gateway.gateway import Gateway, StreamSlots, UploadSlots
from converter.gateway.health import Health, stages_at_work, take_write
from converter.gateway.http.body import Pace
from converter.gateway.http.headers import Proxies
from converter.gateway.http.middleware import Authentication
from converter.gateway.http.protocol import GatewayProtocol, InternalProtocol
from converter.gateway.http.traced import Traced
from converter.gateway.index import JobIndex
from converter.gateway.intake.form import IntakeLimits
from converter.gateway.intake.found_model import NamedModels
from converter.gateway.internal.assets import Assets
from converter.gateway.janitor.sweep import Janitor, Limits
from converter.gateway.live import Live
from converter.gateway.openapi.faces import Security
from converter.gateway.past_runs import PastRuns
from converter.gateway.queues import Queues
from converter.gateway.read_copy import ReadCopy
from converter.gateway.sent_models import SentModels
from converter.gateway.serving import listener, serve
from converter.gateway.settings import GatewaySettings
from converter.gateway.uploads import Quota, Uploads

log = structlog.get_logger()

DEADLINES_AT_ONCE = 4


async def main(settings: GatewaySettings, stop: asyncio.Event) -> None:
    """Serve until `stop`, then let what is under way end.

    Raises:
        Unreachable: NATS, or an address to listen on.
    """
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(await Bus.connect(settings.nats, name="api-gateway", on_lost=service.die))
        store = await stack.enter_async_context(open_store(settings.storage))
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=5.0))
        jwks = _jwks(settings, http)
        stack.push_async_callback(jwks.close)
        health = _health(settings, bus, store, jwks, http)
        await health.refresh()
        await _must_be_there(settings, bus, store)
        live, past_runs = Live(bus, stop), PastRuns()
        await stack.enter_async_context(past_runs.heard(bus))
        await stack.enter_async_context(live.listening())
        index = JobIndex(bus)
        gateway = _gateway(settings, bus, store, live, index, past_runs)
        await stack.enter_async_context(gateway.read_copy.following())
        sweeping = partial(_janitor(settings, gateway).keep_swept, settings.janitor_interval_s)
        alone = partial(Lease(bus, "janitor").while_held, sweeping)
        await stack.enter_async_context(background(index.keep_fresh, alone))
        public = create_app(
            gateway,
            health,
            _authentication(settings, jwks, bus),
            _security(settings),
            Proxies(settings.trusted_proxies),
        )
        internal = create_internal_app(gateway, health, index, Assets.packaged(), _names(settings))
        faces = [
            (public, GatewayProtocol, listener("public", settings.host, settings.port)),
            (internal, InternalProtocol, listener("internal", settings.internal_host, settings.internal_port)),
        ]
        if settings.otel_exporter_otlp_endpoint:
            faces = [(Traced(app), protocol, where) for app, protocol, where in faces]
        gc.collect()
        gc.freeze()  # what has been made by now stays: no collection need look at it again
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(health.keep_fresh())
            expire = Deadlines(gateway.job_log).handle
            tasks.create_task(consume(bus, TIMERS, DEADLINES, expire, concurrency=DEADLINES_AT_ONCE, stop=stop))
            await serve(faces, stop, grace_s=settings.shutdown_grace_seconds)
            watching.cancel()


def _jwks(settings: GatewaySettings, http: httpx.AsyncClient) -> JwksCache:
    tuning = JwksTuning(max_age=settings.jwks_cache_max_age_ms / 1000, cooldown=settings.jwks_cooldown_ms / 1000)
    return JwksCache(settings.member_center_jwks_url, http, tuning=tuning)


def _health(
    settings: GatewaySettings, bus: Bus, store: ArtifactStore, jwks: JwksCache, http: httpx.AsyncClient
) -> Health:
    return Health(
        {
            "nats": partial(take_write, bus),
            "object_storage": store.probe,
            "member_center": jwks.check,
            "file_access_agent": partial(_reach, http, settings.file_store.file_access_agent_base_url),
        },
        partial(stages_at_work, bus),
        refresh_s=settings.health_refresh_ms / 1000,
    )


async def _must_be_there(settings: GatewaySettings, bus: Bus, store: ArtifactStore) -> None:
    """Look at everything without which the gateway would start only to refuse.

    Raises:
        Unreachable, SettingsError: what is wrong with which.
    """
    await heartbeat_s(bus, TIMERS, DEADLINES)
    await _require_retention(bus, settings)
    await must_work(store)
    await service.must_listen("the issuer", settings.member_center_jwks_url)


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


def _gateway(
    settings: GatewaySettings, bus: Bus, store: ArtifactStore, live: Live, index: JobIndex, past_runs: PastRuns
) -> Gateway:
    job_log = JobLog(bus, "api-gateway")
    grace = timedelta(seconds=settings.claim_grace_s)
    quota = Quota(count=settings.resumable_uploads_max_count, size_bytes=settings.resumable_uploads_max_bytes)
    uploads = Uploads(store, timedelta(hours=settings.resumable_upload_ttl_hours), quota)
    sent_models = SentModels(bus, store)
    signing_key = (settings.signing_key.reveal() or secrets.token_hex()).encode()
    return Gateway(
        bus=bus,
        store=store,
        job_log=job_log,
        read_copy=ReadCopy(bus, job_log, live.tell_event, live.tell_gap),
        active_jobs=ActiveJobs(bus, job_log, grace=grace),
        user_jobs=UserJobs(bus),
        live=live,
        queues=Queues(bus, index, job_log, past_runs),
        cursors=Cursors(signing_key),
        links=DownloadLinks(signing_key, timedelta(seconds=settings.download_link_ttl_s)),
        idempotency_keys=IdempotencyKeys(bus, job_log, grace=grace),
        sent_models=sent_models,
        named_models=NamedModels(store, uploads, sent_models, settings.multipart_model_max_bytes),
        uploads=uploads,
        upload_slots=UploadSlots(settings.max_concurrent_uploads, settings.upload_retry_after_seconds),
        stream_slots=StreamSlots(settings.max_streams_per_client),
        limits=IntakeLimits(
            model_max_bytes=settings.multipart_model_max_bytes,
            image_max_bytes=settings.multipart_ref_image_max_bytes,
            images_max_count=settings.multipart_ref_images_max_count,
        ),
        pace=Pace(limit_s=settings.upload_limit_hours * 3600),
        job_deadline=timedelta(hours=settings.job_deadline_hours),
        artifact_ttl=timedelta(days=settings.artifact_ttl_days),
        promote_timeout=timedelta(milliseconds=settings.promote_timeout_ms),
        public_base_url=settings.public_base_url.rstrip("/"),
    )


def _janitor(settings: GatewaySettings, gateway: Gateway) -> Janitor:
    upload = timedelta(hours=settings.upload_limit_hours)
    return Janitor(
        store=gateway.store,
        job_log=gateway.job_log,
        active_jobs=gateway.active_jobs,
        user_jobs=gateway.user_jobs,
        uploads=gateway.uploads,
        limits=Limits(
            upload=upload,
            creation=upload + timedelta(seconds=settings.claim_grace_s),
        ),
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
    assertions = UserAssertions(
        mode=settings.user_assertion,
        secret=settings.user_assertion_secret.reveal().encode(),
        skew_s=settings.user_assertion_skew_s,
    )
    return Authentication(TokenVerifier(jwks, policy), limits, scopes, settings.converter_tenant_id, assertions)


def _names(settings: GatewaySettings) -> set[str]:
    names = (name.strip().lower() for name in settings.internal_allowed_hosts.split(","))
    return {name for name in names if name}


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
        found = f"{settings.artifact_ttl_days}, but events are kept for {kept / timedelta(days=1):g} days"
        raise SettingsError([Problem("ARTIFACT_TTL_DAYS", found, allowed)])


if __name__ == "__main__":
    service.run("api-gateway", GatewaySettings, main)
