"""Headers: those that every answer carries, whatever it is, and what a request says in several lines."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network

from litestar.types import HTTPScope

from converter.common.identifiers import uuid7

_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_HARDENING = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"origin-agent-cluster", b"?1"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-dns-prefetch-control", b"off"),
    (b"x-download-options", b"noopen"),
    (b"x-frame-options", b"DENY"),
    (b"x-permitted-cross-domain-policies", b"none"),
    (b"x-xss-protection", b"0"),
)
_STRICT_TRANSPORT = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")

REALM = "kneron-model-converter"

Header = tuple[bytes, bytes]


def hardening(*, secure: bool) -> tuple[Header, ...]:
    """The headers that helmet sets; `secure` when the client's side of the connection is TLS."""
    return (*_HARDENING, _STRICT_TRANSPORT) if secure else _HARDENING


class Proxies:
    """The proxies that may say that the client's side of the connection is TLS; nothing else is taken from them.

    Args:
        trusted: their addresses or networks, with commas between; `none` for nobody.

    Raises:
        ValueError: one is neither.
    """

    def __init__(self, trusted: str) -> None:
        self._networks = [ip_network(entry.strip()) for entry in trusted.split(",")] if trusted != "none" else []
        self._trusts = lru_cache(maxsize=64)(self._is_one)

    def client_has_tls(self, scope: HTTPScope, headers: Mapping[bytes, bytes]) -> bool:
        """Whether the client's side is TLS, as far as can be known."""
        if headers.get(b"x-forwarded-proto", b"").strip().lower() == b"https":
            client = scope.get("client")
            return client is not None and self._trusts(client[0])
        return scope["scheme"] == "https"

    def _is_one(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:  # a socket of another family has no address
            return False
        return any(found in network for network in self._networks)


def page_policy(style: str) -> str:
    """The Content-Security-Policy of a page that has this one style element and loads nothing."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


def challenge(error: str | None = None, **facts: str) -> str:
    """The value of `WWW-Authenticate` (RFC 6750 section 3); no `error` when the request carried no token."""
    parameters = {"realm": REALM, **({"error": error} if error else {}), **facts}
    return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in parameters.items())


def combined(headers: Iterable[Header], name: bytes) -> str | None:
    """What a request's header `name`, a list, says in all its lines (RFC 9110 section 5.3); None if it has none."""
    lines = [value for sent, value in headers if sent == name]
    return b", ".join(lines).decode("latin-1") if lines else None


def request_id(offered: bytes | None) -> str:
    """The id that the client offers if it is sane, else a new one."""
    return offered.decode() if offered and _SANE_REQUEST_ID.fullmatch(offered) else uuid7()
