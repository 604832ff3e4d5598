"""Where everything is and with which secrets: the variables that the services read, and `stack.env` for people.

VariablesMissing    a server is replaced by an outside one, but not all that is needed to use it is set
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from converter.common.private import write_private
from converter.devstack.clients import Client
from converter.devstack.loopback import HOST, ReservedPorts, origin

NATS, S3, ISSUER, FILE_STORE = "nats-server", "seaweedfs", "issuer", "file-store"
BUCKET = "converter"
AUDIENCE, FILE_STORE_AUDIENCE = "kneron-converter", "file-access-agent"
CLIENT_ID, CLIENT2_ID, CONVERTER_CLIENT_ID = "upstream-one", "upstream-two", "kneron-converter"
SCOPES = ("converter:job.write", "converter:job.read")
UPLOAD_SCOPE, READ_SCOPE = "files:upload.write", "files:read"

OUTSIDE = {
    NATS: ("NATS_URL",),
    S3: ("MINIO_ENDPOINT_URL", "MINIO_BUCKET", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"),
    ISSUER: (
        "MEMBER_CENTER_ISSUER",
        "MEMBER_CENTER_JWKS_URL",
        "MEMBER_CENTER_TOKEN_URL",
        "KNERON_CONVERTER_AUDIENCE",
        "KNERON_CONVERTER_CLIENT_ID",
        "KNERON_CONVERTER_CLIENT_SECRET",
    ),
    FILE_STORE: ("FILE_ACCESS_AGENT_BASE_URL", "FILE_ACCESS_AGENT_AUDIENCE"),
}
"""By server of ours, the variables that say how to use another in its place. The first of them alone decides it."""
DEFAULT_PORTS = {NATS: 4222, S3: 8333, ISSUER: 4010, FILE_STORE: 4020}


class VariablesMissing(RuntimeError):
    """`server` is replaced, but the `missing` variables are not set."""

    def __init__(self, server: str, missing: list[str]) -> None:
        super().__init__(f"to use a {server} of your own, also set {', '.join(missing)}")
        self.server, self.missing = server, missing


class Credentials(Struct, frozen=True, kw_only=True):
    """The stack's secrets, made once."""

    client_secret: str
    client2_secret: str
    converter_client_secret: str
    s3_access_key: str
    s3_secret_key: str
    signing_key: str


def credentials(directory: Path) -> Credentials:
    """The secrets of the stack in `directory`, made now if there are none."""
    file = directory / "secrets.json"
    if not file.exists():
        made = Credentials(**{name: secrets.token_urlsafe(32) for name in Credentials.__struct_fields__})
        write_private(file, msgspec.json.encode(made))
    return msgspec.json.decode(file.read_bytes(), type=Credentials)


def outside(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of `environ` that replace servers of ours.

    Raises:
        VariablesMissing: with the first of a server's variables not all others are set.
    """
    found: dict[str, str] = {}
    for server, names in OUTSIDE.items():
        if environ.get(names[0]):
            missing = [name for name in names if not environ.get(name)]
            if missing:
                raise VariablesMissing(server, missing)
            found |= {name: environ[name] for name in names}
    return found


class Addresses:
    """Every variable of the services, for our own servers and for those that `replaced` names."""

    def __init__(
        self, known: Credentials, ports: ReservedPorts, *, replaced: Mapping[str, str], default_ports: bool
    ) -> None:
        self.own = [server for server, names in OUTSIDE.items() if names[0] not in replaced]
        self.ports = {server: ports.take(DEFAULT_PORTS[server] if default_ports else 0) for server in self.own}
        self.variables = self._of_own_servers(known) | dict(replaced)
        self._known = known

    def _of_own_servers(self, known: Credentials) -> dict[str, str]:
        at = {server: origin(port) for server, port in self.ports.items()}
        ours = {
            NATS: [f"nats://{HOST}:{self.ports.get(NATS)}"],
            S3: [at.get(S3, ""), BUCKET, known.s3_access_key, known.s3_secret_key],
            ISSUER: [
                at.get(ISSUER, ""),
                f"{at.get(ISSUER)}/jwks",
                f"{at.get(ISSUER)}/token",
                AUDIENCE,
                CONVERTER_CLIENT_ID,
                known.converter_client_secret,
            ],
            FILE_STORE: [at.get(FILE_STORE, ""), FILE_STORE_AUDIENCE],
        }
        of_servers = {
            name: value for server in self.own for name, value in zip(OUTSIDE[server], ours[server], strict=True)
        }
        return {"STORAGE_BACKEND": "minio", "SIGNING_KEY": known.signing_key, **of_servers}

    @property
    def clients(self) -> tuple[Client, ...]:
        """Whom our own issuer knows: two upstreams, and the converter itself."""
        variables, known = self.variables, self._known
        files = variables["FILE_ACCESS_AGENT_AUDIENCE"]
        upstream = {variables["KNERON_CONVERTER_AUDIENCE"]: SCOPES, files: (READ_SCOPE,)}
        return (
            Client(client_id=CLIENT_ID, client_secret=known.client_secret, grants=upstream, tenant_id="one"),
            Client(client_id=CLIENT2_ID, client_secret=known.client2_secret, grants=upstream, tenant_id="two"),
            Client(
                client_id=variables["KNERON_CONVERTER_CLIENT_ID"],
                client_secret=variables["KNERON_CONVERTER_CLIENT_SECRET"],
                grants={files: (UPLOAD_SCOPE,)},
                tenant_id="converter",
            ),
        )

    def for_people(
        self,
        *,
        gateway_url: str,
        internal_url: str,
        subscriber_seed: str,
        public_key_file: Path,
        pids: Mapping[str, int],
    ) -> dict[str, str]:
        """What `stack.env` says. With an outside issuer it knows no upstream's secret."""
        variables = self.variables
        upstream = ISSUER in self.own
        return {
            "GATEWAY_URL": gateway_url,
            "INTERNAL_URL": internal_url,
            "TOKEN_URL": variables["MEMBER_CENTER_TOKEN_URL"],
            "JWKS_URL": variables["MEMBER_CENTER_JWKS_URL"],
            "AUDIENCE": variables["KNERON_CONVERTER_AUDIENCE"],
            "CLIENT_ID": CLIENT_ID if upstream else "",
            "CLIENT_SECRET": self._known.client_secret if upstream else "",
            "CLIENT2_ID": CLIENT2_ID if upstream else "",
            "CLIENT2_SECRET": self._known.client2_secret if upstream else "",
            "NATS_URL": variables["NATS_URL"],
            "SUBSCRIBER_NKEY_SEED": subscriber_seed,
            "PROVENANCE_PUBLIC_KEY_FILE": str(public_key_file),
            "S3_ENDPOINT": variables["MINIO_ENDPOINT_URL"],
            "S3_ACCESS_KEY": variables["MINIO_ACCESS_KEY"],
            "S3_SECRET_KEY": variables["MINIO_SECRET_KEY"],
            "S3_BUCKET": variables["MINIO_BUCKET"],
            "FILE_STORE_URL": variables["FILE_ACCESS_AGENT_BASE_URL"],
            "PIDS": ",".join(f"{name}={pid}" for name, pid in pids.items()),
        }
