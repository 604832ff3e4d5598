"""Writes `deploy/nginx/converter.conf`, the virtual hosts before the gateways; `make generate` does with the defaults.

With your own names, addresses and limits:

    PUBLIC_NAME=converter.example.com GATEWAYS=10.0.0.5,10.0.0.6 .venv/bin/python deploy/nginx_conf.py > converter.conf

The limits come from the gateway's own variables, so that the proxy never refuses what the gateway would take.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from string import Template
from typing import Annotated

from msgspec import Meta, Struct, structs

from converter.common.environment import SettingsError, load
from converter.gateway.http.errors import Refusal, envelope
from converter.gateway.serving import IDLE_S
from converter.gateway.settings import GatewaySettings

_GATEWAY = {field.name: field.default for field in structs.fields(GatewaySettings)}
FORM_BYTES = 1024 * 1024
"""What a form adds to its files: fields and part headers."""
ANSWER_MARGIN_S = 30
"""How much longer than the gateway's slowest answer, a promotion's, the proxy waits."""


class Proxy(Struct, frozen=True, kw_only=True):
    """What can be set, as environment variables."""

    public_name: Annotated[str, Meta(description="the public host's name")] = "converter.example"
    internal_name: Annotated[str, Meta(description="the internal host's name")] = "converter-internal.example"
    public_listen: Annotated[str, Meta(description="where the public host listens")] = "443"
    internal_listen: Annotated[str, Meta(description="where the internal host listens")] = "127.0.0.1:8443"
    internal_allow: Annotated[str, Meta(description="who may use the internal host, separated by commas")] = "127.0.0.1"
    gateways: Annotated[str, Meta(description="addresses of the gateways, separated by commas")] = "127.0.0.1"
    certificate: Annotated[str, Meta(description="certificate chain, PEM")] = "/etc/nginx/tls/converter.crt"
    certificate_key: Annotated[str, Meta(description="its key, PEM")] = "/etc/nginx/tls/converter.key"

    port: Annotated[int, Meta(ge=1, le=65535)] = _GATEWAY["port"]
    internal_port: Annotated[int, Meta(ge=1, le=65535)] = _GATEWAY["internal_port"]
    multipart_model_max_bytes: Annotated[int, Meta(ge=1)] = _GATEWAY["multipart_model_max_bytes"]
    multipart_ref_image_max_bytes: Annotated[int, Meta(ge=1)] = _GATEWAY["multipart_ref_image_max_bytes"]
    multipart_ref_images_max_count: Annotated[int, Meta(ge=0)] = _GATEWAY["multipart_ref_images_max_count"]
    promote_timeout_ms: Annotated[int, Meta(ge=1)] = _GATEWAY["promote_timeout_ms"]

    @property
    def body_max_bytes(self) -> int:
        """The largest request that the gateway takes."""
        images = self.multipart_ref_images_max_count * self.multipart_ref_image_max_bytes
        return self.multipart_model_max_bytes + images + FORM_BYTES

    @property
    def answer_within_s(self) -> int:
        """How long an answer may be silent."""
        return math.ceil(self.promote_timeout_ms / 1000) + ANSWER_MARGIN_S


CONF = Template("""\
# The virtual hosts before the gateways, written by deploy/nginx_conf.py. Include it in nginx's http block.

upstream converter_public {
$public_servers
    keepalive 64;
    keepalive_timeout ${idle_s}s;  # closed here before the gateway does
}

upstream converter_internal {
$internal_servers
    keepalive 8;
    keepalive_timeout ${idle_s}s;
}

# For upstream back-ends.
server {
    listen $public_listen ssl http2;
    server_name $public_name;
$common
    add_header Strict-Transport-Security "max-age=31536000" always;
    proxy_hide_header Strict-Transport-Security;

    location / {
        proxy_pass http://converter_public;
    }

    # What the proxy itself has to say, it says as the gateway would.
    error_page 413 @too_large;
    location @too_large {
        default_type application/json;
        return 413 '$too_large';
    }
    error_page 502 504 =503 @away;
    location @away {
        default_type application/json;
        add_header Retry-After 5 always;
        return 503 '$away';
    }
}

# For operators. The internal API authenticates nobody: let in whom you trust, and nobody else.
# The gateways must know its name: INTERNAL_ALLOWED_HOSTS=$internal_name
server {
    listen $internal_listen ssl http2;
    server_name $internal_name;
$common
$allowed
    deny all;

    location / {
        proxy_pass http://converter_internal;
    }
}
""")

COMMON = Template("""
    ssl_certificate $certificate;
    ssl_certificate_key $certificate_key;
    ssl_protocols TLSv1.2 TLSv1.3;
    server_tokens off;

    # The largest model, the largest reference set and the form around them.
    client_max_body_size $body_max_bytes;
    client_header_timeout 10s;

    # An upload passes as it comes, or it would fill this machine's disk, and a refusal could not stop it.
    proxy_request_buffering off;
    # Server-sent events, followed logs and downloads pass as they come.
    proxy_buffering off;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $$host;
    proxy_set_header X-Forwarded-Proto $$scheme;
    proxy_set_header X-Forwarded-For $$remote_addr;
    # A promotion answers when the file store has the artifact; events have a heartbeat.
    proxy_read_timeout ${answer_within_s}s;
    proxy_send_timeout 60s;
""")


def nginx_conf(proxy: Proxy) -> str:
    """The configuration's text."""
    gateways = [address.strip() for address in proxy.gateways.split(",")]
    limits = {"body_max_bytes": proxy.body_max_bytes, "answer_within_s": proxy.answer_within_s}
    values = structs.asdict(proxy) | limits
    too_large = Refusal("file_too_large", details={"limit_bytes": proxy.body_max_bytes})
    away = Refusal("service_busy", "No gateway answers.")
    return CONF.substitute(
        values,
        too_large=envelope(too_large, "$request_id").decode(),
        away=envelope(away, "$request_id").decode(),
        common=COMMON.substitute(values),
        idle_s=IDLE_S - 5,
        public_servers=_lines("server {};", [f"{address}:{proxy.port}" for address in gateways]),
        internal_servers=_lines("server {};", [f"{address}:{proxy.internal_port}" for address in gateways]),
        allowed=_lines("allow {};", [address.strip() for address in proxy.internal_allow.split(",")]),
    )


def _lines(form: str, values: list[str]) -> str:
    return "\n".join(f"    {form.format(value)}" for value in values)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try:
        sys.stdout.write(nginx_conf(load(Proxy, os.environ)))
    except SettingsError as error:
        sys.exit(str(error))
