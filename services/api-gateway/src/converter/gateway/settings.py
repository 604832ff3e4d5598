"""Everything that the gateway reads from its environment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from msgspec import Meta

from converter.common.settings import (
    FileAccessAgentSettings,
    HttpUrl,
    NatsSettings,
    OAuthClientSettings,
    Problem,
    Secret,
    ServiceSettings,
    StorageSettings,
)
from converter.gateway.http.headers import Proxies

SECRET_MIN_CHARS = 32
_LONG_SECRET = f"a secret of {SECRET_MIN_CHARS} characters or more"


class GatewaySettings(ServiceSettings, frozen=True, kw_only=True):
    """The gateway's variables."""

    nats: NatsSettings
    storage: StorageSettings
    oauth_client: OAuthClientSettings
    file_store: FileAccessAgentSettings

    host: Annotated[str, Meta(description="address on which the public API listens, behind a proxy that does TLS")] = (
        "0.0.0.0"  # noqa: S104 - upstream services come from other machines
    )
    port: Annotated[int, Meta(ge=0, le=65535, description="port of the public API; 0: any, the log says which")] = 4000
    trusted_proxies: Annotated[
        str,
        Meta(
            description="addresses or networks, with commas between, whose X-Forwarded-Proto is believed: "
            "behind TLS answers carry Strict-Transport-Security; none: nobody's"
        ),
    ] = "127.0.0.1,::1"
    internal_host: Annotated[str, Meta(description="address on which the internal API listens")] = "127.0.0.1"
    internal_port: Annotated[
        int, Meta(ge=0, le=65535, description="port of the internal API; 0: any, the log says which")
    ] = 4001

    internal_allowed_hosts: Annotated[
        str,
        Meta(description="names by which the internal API may be called, with commas between; loopback's always may"),
    ] = ""

    member_center_issuer: Annotated[str, Meta(description="the iss that tokens must carry")]
    member_center_jwks_url: Annotated[HttpUrl, Meta(description="the issuer's key set")]
    kneron_converter_audience: Annotated[str, Meta(description="the aud that tokens must carry")]
    converter_tenant_id: Annotated[
        str, Meta(description="the tenant_id that tokens must carry; empty: any, or none")
    ] = ""
    converter_scope_read: Annotated[str, Meta(description="scope of the requests that read")] = "converter:job.read"
    converter_scope_write: Annotated[str, Meta(description="scope of the requests that change")] = "converter:job.write"
    jwks_cache_max_age_ms: Annotated[
        int, Meta(ge=1_000, description="how long the key set counts as fresh, unless the issuer says less")
    ] = 600_000
    jwks_cooldown_ms: Annotated[
        int, Meta(ge=100, description="unknown keys do not have the key set fetched more often than this")
    ] = 30_000
    jwt_clock_tolerance_sec: Annotated[
        int, Meta(ge=0, le=300, description="how far the issuer's clock may be from ours")
    ] = 60
    jwt_typ: Annotated[
        Literal["any", "at+jwt"],
        Meta(description="at+jwt: only tokens that call themselves access tokens (RFC 9068); any: also plain JWT"),
    ] = "any"

    user_assertion: Annotated[
        Literal["off", "token", "hmac"],
        Meta(
            description="proof of the user for whom a request is; off: the upstream is believed; "
            "token: the token's user_id or sub; hmac: the header X-User-Assertion"
        ),
    ] = "off"
    user_assertion_secret: Annotated[
        Secret,
        Meta(
            description="signs X-User-Assertion; shared with the upstream",
            extra={"required_when": {"user_assertion": "hmac"}, "allowed": _LONG_SECRET},
        ),
    ] = Secret("")
    user_assertion_skew_s: Annotated[
        float, Meta(gt=0, le=3600, description="how far the time of X-User-Assertion may be from now, before and after")
    ] = 60.0

    multipart_model_max_bytes: Annotated[int, Meta(ge=1, description="largest model")] = 500 * 1024 * 1024
    multipart_ref_image_max_bytes: Annotated[int, Meta(ge=1, description="largest reference image")] = 10 * 1024 * 1024
    multipart_ref_images_max_count: Annotated[int, Meta(ge=0, description="most reference images of a job")] = 100
    max_concurrent_uploads: Annotated[int, Meta(ge=1, description="uploads at once in one gateway")] = 5
    upload_retry_after_seconds: Annotated[
        int, Meta(ge=1, description="when a client that met a busy gateway should come back")
    ] = 30
    max_streams_per_client: Annotated[
        int, Meta(ge=1, description="streams of events that a client may have open at once in one gateway")
    ] = 2_000

    api_v1_rate_limit_max: Annotated[
        int, Meta(ge=1, description="requests that a client may make in a window, at all gateways together")
    ] = 300
    api_v1_rate_limit_window_ms: Annotated[int, Meta(ge=1, le=86_400_000, description="how long a window lasts")] = (
        300_000
    )

    claim_grace_s: Annotated[
        float, Meta(gt=0, description="how long a user's lock may stand without its job, after a gateway died")
    ] = 30.0
    job_deadline_hours: Annotated[float, Meta(gt=0, description="a job that takes longer fails")] = 24.0
    promote_timeout_ms: Annotated[int, Meta(ge=1, description="how long a promotion may take")] = 300_000
    artifact_ttl_days: Annotated[int, Meta(ge=1, description="how long a job and its artifacts are kept")] = 7
    resumable_upload_ttl_hours: Annotated[
        float, Meta(gt=0, description="how long a resumable upload may take, and is kept when it is complete")
    ] = 24.0
    resumable_uploads_max_count: Annotated[
        int, Meta(ge=1, description="resumable uploads that one client may have, those that no job has used")
    ] = 20
    resumable_uploads_max_bytes: Annotated[
        int, Meta(ge=1, description="bytes that they may have together; not less than the largest model")
    ] = 4 * 1024 * 1024 * 1024
    upload_limit_hours: Annotated[
        float,
        Meta(gt=0, description="how long the body of one request may take; what is left of a longer one is removed"),
    ] = 24.0
    janitor_interval_s: Annotated[
        float,
        Meta(gt=0, description="how often one of the gateways removes what is past its time or was left by a crash"),
    ] = 900.0
    download_link_ttl_s: Annotated[int, Meta(ge=1, description="how long a download link works")] = 900
    public_base_url: Annotated[
        HttpUrl,
        Meta(description="what download links begin with, https://converter.example; empty: they are paths alone"),
    ] = ""
    health_refresh_ms: Annotated[
        int, Meta(ge=100, description="how old the report of /health may become; younger while something is wrong")
    ] = 30_000
    shutdown_grace_seconds: Annotated[
        int, Meta(ge=0, description="how long requests that are under way may take after the signal to stop")
    ] = 25
    signing_key: Annotated[
        Secret,
        Meta(
            description="signs cursors and download links; the same in every gateway; generated in development",
            extra={"required_when": {"environment": "production"}, "allowed": _LONG_SECRET},
        ),
    ] = Secret("")

    def conflicts(self) -> Iterable[Problem]:
        """Secrets that could be guessed, two listeners on one port, proxies without an address."""
        try:
            Proxies(self.trusted_proxies)
        except ValueError as error:
            yield Problem("TRUSTED_PROXIES", str(error), "addresses or networks, with commas between; none")
        secrets = {"SIGNING_KEY": self.signing_key, "USER_ASSERTION_SECRET": self.user_assertion_secret}
        for name, secret in secrets.items():
            if secret and len(secret.reveal()) < SECRET_MIN_CHARS:
                yield Problem(name, "too short", _LONG_SECRET)
        if self.port and self.port == self.internal_port:
            yield Problem("INTERNAL_PORT", f"{self.port}, which is PORT", "another port than PORT")
        if self.resumable_uploads_max_bytes < self.multipart_model_max_bytes:
            allowed = f"{self.multipart_model_max_bytes} or more, which is MULTIPART_MODEL_MAX_BYTES"
            yield Problem("RESUMABLE_UPLOADS_MAX_BYTES", str(self.resumable_uploads_max_bytes), allowed)
