"""The settings that several services read; each service's own Struct nests the ones it needs.

`environment` says how a Struct becomes variables, and is used through this module.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from converter.common.environment import CrossChecked, Problem, Secret, SettingsError, Variable, describe, load

__all__ = [
    "CrossChecked",
    "FileAccessAgentSettings",
    "HttpUrl",
    "MonitoringSettings",
    "NatsSettings",
    "OAuthClientSettings",
    "Port",
    "Problem",
    "Secret",
    "ServiceSettings",
    "SettingsError",
    "StageSettings",
    "StorageSettings",
    "Variable",
    "describe",
    "load",
]

HttpUrl = Annotated[
    str, Meta(pattern=r"^https?://[^\s/?#@]+[^\s?#@]*\Z", extra={"allowed": "an address, http://… or https://…"})
]
Port = Annotated[int, Meta(ge=1, le=65535)]


class ServiceSettings(Struct, frozen=True, kw_only=True):
    """What every service reads; a service's own Struct extends it."""

    environment: Annotated[
        Literal["development", "production"],
        Meta(description="production refuses placeholders and a file store without TLS"),
    ] = "development"
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], Meta(description="the least important lines to log")
    ] = "INFO"
    otel_exporter_otlp_endpoint: Annotated[
        HttpUrl,
        Meta(description="collector of traces, OTLP over HTTP; empty: none are made. Other OTEL_* variables hold too"),
    ] = ""


class MonitoringSettings(Struct, frozen=True, kw_only=True):
    """Where a worker answers its monitoring system; the gateway does on its internal listener."""

    metrics_port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="port of /metrics, /health/live and /health/ready; 0: any, the log says which",
        ),
    ] = 0
    metrics_host: Annotated[str, Meta(description="address on which METRICS_PORT listens")] = "127.0.0.1"


class NatsSettings(Struct, frozen=True, kw_only=True):
    """Where the event bus is and how to prove who asks."""

    nats_url: Annotated[
        str,
        Meta(
            pattern=r"^(nats|tls|ws|wss)://[^\s,]+(,(nats|tls|ws|wss)://[^\s,]+)*\Z",
            description="servers of the event bus",
            extra={"allowed": "addresses nats://host:4222 or tls://host:4222, separated by commas"},
        ),
    ]
    nats_nkey_seed_file: Annotated[Path | None, Meta(description="file with the service's nkey seed")] = None
    nats_ca_file: Annotated[Path | None, Meta(description="PEM file of the authority that signed the servers")] = None


_MINIO = {"required_when": {"storage_backend": "minio"}}


class StorageSettings(Struct, frozen=True, kw_only=True):
    """Where artifacts are kept: an S3 server, or a directory that the services of one machine share."""

    storage_backend: Annotated[
        Literal["minio", "local"], Meta(description="minio: an S3 server; local: a directory of this machine")
    ]
    minio_endpoint_url: Annotated[HttpUrl, Meta(description="the S3 server", extra=_MINIO)] = ""
    minio_bucket: Annotated[str, Meta(description="the bucket that holds all objects", extra=_MINIO)] = ""
    minio_access_key: Annotated[Secret, Meta(description="access key of the S3 server", extra=_MINIO)] = Secret("")
    minio_secret_key: Annotated[Secret, Meta(description="secret key of the S3 server", extra=_MINIO)] = Secret("")
    local_storage_dir: Annotated[
        Path | None, Meta(description="the directory", extra={"required_when": {"storage_backend": "local"}})
    ] = None


class OAuthClientSettings(Struct, frozen=True, kw_only=True):
    """How a service gets its own tokens (RFC 6749 section 4.4) for the file store."""

    member_center_token_url: Annotated[HttpUrl, Meta(description="the issuer's token endpoint")]
    kneron_converter_client_id: Annotated[str, Meta(description="the converter's own client id")]
    kneron_converter_client_secret: Annotated[Secret, Meta(description="the converter's own client secret")]
    file_access_agent_audience: Annotated[str, Meta(description="audience of tokens for the file store")]
    oauth_token_refresh_skew_ms: Annotated[
        int, Meta(ge=0, description="how long before its end a token is renewed")
    ] = 60_000
    oauth_token_timeout_ms: Annotated[int, Meta(ge=1, description="how long the issuer may take to answer")] = 5_000


class FileAccessAgentSettings(Struct, frozen=True, kw_only=True):
    """Where promoted artifacts go."""

    file_access_agent_base_url: Annotated[
        HttpUrl,
        Meta(
            description="the file store; artifacts are put below <this>/files/",
            extra={"production": "^https://", "allowed": "an address, https://… (http://… only in development)"},
        ),
    ]


class StageSettings(Struct, frozen=True, kw_only=True):
    """What a stage's worker may use for one conversion, and how often it tries."""

    stage_timeout_s: Annotated[int, Meta(ge=1, description="seconds that one conversion may take")] = 3600
    stage_memory_mb: Annotated[int, Meta(ge=64, description="MiB of memory that one conversion may use")] = 4096
    stage_concurrency: Annotated[int, Meta(ge=1, le=64, description="conversions at once in one worker")] = 1
    stage_max_attempts: Annotated[int, Meta(ge=1, description="attempts before a job fails with stage_crashed")] = 3
    toolchain: Annotated[
        Literal["reference", "kneron"],
        Meta(description="what converts: reference needs nothing else; kneron is the vendor's, see docs/toolchains.md"),
    ] = "reference"
    work_dir: Annotated[
        Path | None, Meta(description="where attempts keep their files; empty: the system's temporary directory")
    ] = None
    provenance_key_file: Annotated[
        Path | None,
        Meta(
            description="the key that signs how artifacts were made, see docs/provenance.md; empty: nothing is signed"
        ),
    ] = None
    kneron_python: Annotated[
        Path | None, Meta(description="the Python that has the vendor's toolchain, where the stage runs in its image")
    ] = None
    kneron_image: Annotated[
        str,
        Meta(
            pattern=r"^[^\s@-][^\s@]*@sha256:[0-9a-f]{64}\Z",
            description="the vendor's image, to be run with docker for each conversion",
            extra={"allowed": "an image pinned by its digest, kneron/toolchain@sha256:…"},
        ),
    ] = ""
    kneron_home: Annotated[
        Path, Meta(description="where the vendor's toolchain and its version.txt are, with KNERON_PYTHON")
    ] = Path("/workspace")
    kneron_writable_dirs: Annotated[
        str,
        Meta(
            pattern=r"^/[^:]*(:/[^:]*)*\Z",
            description="directories that the vendor's programs write to besides the attempt's own, with KNERON_PYTHON",
            extra={"allowed": "absolute paths, separated by colons"},
        ),
    ] = "/data1:/dev/shm"
    kneron_threads: Annotated[int, Meta(ge=1, le=64, description="threads of the vendor's quantiser")] = 4
    docker_host: Annotated[
        str,
        Meta(
            pattern=r"^unix:///\S+\Z",
            description="the socket of the engine that runs KNERON_IMAGE",
            extra={"allowed": "a local socket, unix:///…"},
        ),
    ] = "unix:///var/run/docker.sock"

    def conflicts(self) -> Iterable[Problem]:
        """The vendor's toolchain is run in one of two ways, and in its own image only one conversion at a time."""
        if self.toolchain != "kneron":
            return
        if (self.kneron_python is None) == (not self.kneron_image):
            found = "missing" if self.kneron_python is None else "both are set"
            yield Problem(
                "KNERON_PYTHON, KNERON_IMAGE", found, "exactly one of them, as TOOLCHAIN=kneron is run in one way"
            )
        elif self.kneron_python and self.stage_concurrency > 1:
            # Its programs write under fixed paths, where two conversions would meet.
            yield Problem("STAGE_CONCURRENCY", str(self.stage_concurrency), "1 with KNERON_PYTHON")
