"""Keeps other sites away from a listener that authenticates nobody: a browser on the operator's machine reaches it too.

* A request must be addressed to a name that is known here, or a site could point its own name at this address (DNS
  rebinding) and read everything. The address itself is no name, and is how probes and collectors call it.
* A request that changes something must come from the page itself: browsers say where a request began (`Sec-Fetch-Site`,
  Fetch Metadata, over TLS and on loopback; elsewhere `Origin`, Fetch Standard). One that says neither is no browser.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from typing import cast

from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from converter.gateway.http.errors import Refusal
from converter.gateway.http.written import shown

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class SameSite:
    """Passes on what is for `app`.

    Args:
        app: what is guarded.
        allowed_hosts: names, lower-case and without port, by which it may be called besides loopback's and the address
            that the request came to.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str]) -> None:
        self._app, self._allowed_hosts = app, frozenset(allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request (ASGI).

        Raises:
            Refusal: `unknown_host` or `cross_site_request`.
        """
        http = cast("HTTPScope", scope)
        headers = {name: value.decode("latin-1") for name, value in http["headers"]}
        host = headers.get(b"host", "")
        name = host_name(host)
        address = (http["server"] or ("", None))[0].lower()
        if name not in self._allowed_hosts and not _is_address(name, address):
            raise Refusal("unknown_host", f"This listener is not called {shown(host)}.")
        if http["method"] not in SAFE_METHODS and not _is_from_here(headers, host):
            raise Refusal("cross_site_request")
        await self._app(scope, receive, send)


def host_name(host: str) -> str:
    """The name in a `Host` header, lower-case, without port, brackets and the root's dot."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().removesuffix(".")


def _is_address(name: str, address: str) -> bool:
    """Whether `name` is loopback's, or the address that the request came to."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback or name == address
    except ValueError:
        return False


def _is_from_here(headers: Mapping[bytes, str], host: str) -> bool:
    """Whether no other site's page has sent this.

    No script can set `Sec-Fetch-Site`, so it decides where it is; `none` is what the user began himself. `Origin` is
    held against `Host` without its scheme, which a proxy may have ended.
    """
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if site is not None:
        return site in {"same-origin", "none"}
    return origin is None or origin.partition("://")[2].lower() == host.lower()
