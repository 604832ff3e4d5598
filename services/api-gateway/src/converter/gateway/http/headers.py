"""Headers that every answer carries, whatever it is."""

from __future__ import annotations

import re

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

Header = tuple[bytes, bytes]


def hardening(*, secure: bool) -> tuple[Header, ...]:
    """The headers that helmet sets; `secure` when the client's side of the connection is TLS."""
    return (*_HARDENING, _STRICT_TRANSPORT) if secure else _HARDENING


def request_id(offered: bytes | None) -> str:
    """The id that the client offers if it is sane, else a new one."""
    return offered.decode() if offered and _SANE_REQUEST_ID.fullmatch(offered) else uuid7()
