"""`Content-Digest` of a request (RFC 9530): digests of the whole body, verified while it passes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from converter.gateway.http.errors import Refusal
from converter.gateway.http.written import Bad

_MEMBER = re.compile(r"\s*([a-z][a-z0-9_.*-]*)=:([A-Za-z0-9+/]*={0,2}):\s*")
_MALFORMED = "malformed; allowed: sha-256=:<base64>: (RFC 9530)"
_KNOWN = {"sha-256": "sha256", "sha-512": "sha512"}


class ContentDigest:
    """What the header says, against what arrives. Algorithms that nobody should use any more are ignored.

    Args:
        header: `sha-256=:…:, sha-512=:…:`, all lines of it, or nothing.

    Raises:
        Bad: it is malformed.
    """

    def __init__(self, header: str) -> None:
        self._expected: dict[str, bytes] = {}
        for text in header.split(",") if header else []:
            member = _MEMBER.fullmatch(text)
            if member is None:
                raise Bad(_MALFORMED)
            if member[1] in _KNOWN:
                try:
                    self._expected[member[1]] = base64.b64decode(member[2], validate=True)
                except binascii.Error:
                    raise Bad(_MALFORMED) from None
        self._found = {name: hashlib.new(_KNOWN[name]) for name in self._expected}

    def update(self, data: bytes) -> None:
        """The body goes on."""
        for digest in self._found.values():
            digest.update(data)

    def verify(self) -> None:
        """The body has ended.

        Raises:
            Refusal: `digest_mismatch`.
        """
        for name, digest in self._found.items():
            if digest.digest() != self._expected[name]:
                found = base64.b64encode(digest.digest()).decode()
                raise Refusal(
                    "digest_mismatch",
                    "The body that arrived is not the one that Content-Digest names.",
                    details={"algorithm": name, "found": found, "hint": "Send the request again."},
                )
