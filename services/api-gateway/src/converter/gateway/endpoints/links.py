"""Download links: whoever has one may fetch one artifact for a while, with no other proof.

A token is the job's id, the stage, the artifact's digest and the time at which it ends, signed; 92 characters.

LinkInvalid    it was not made here, or is damaged
LinkExpired    its time is over
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from converter.contracts.job import STAGES, Sha256, Stage, Timestamp, timestamp

_CLAIMS = struct.Struct(">16sB32sI")
"""Job id, index of the stage, sha256 of the artifact, end in seconds since 1970 (enough until 2106)."""
_MAC_BYTES = 16
"""With the claims a multiple of three: base64 has neither padding nor bits that say nothing."""


class LinkInvalid(Exception):
    """Not a token of ours."""


class LinkExpired(Exception):
    """A token of ours whose time ended at `at`."""

    def __init__(self, at: Timestamp) -> None:
        super().__init__(f"the link ended at {at}")
        self.at = at


class Link(Struct, frozen=True):
    """What a token gives the right to."""

    job_id: str
    stage: Stage
    sha256: Sha256


class DownloadLinks:
    """Makes and reads tokens.

    Args:
        key: shared by all gateways.
        life: how long a link works.
        clock: the aware time now.
    """

    def __init__(
        self, key: bytes, life: timedelta, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._key, self._life, self._clock = key, life, clock

    def token(self, link: Link) -> tuple[str, Timestamp]:
        """A token for `link`, and when it ends."""
        ends = int((self._clock() + self._life).timestamp())
        job, digest = uuid.UUID(link.job_id).bytes, bytes.fromhex(link.sha256)
        claims = _CLAIMS.pack(job, STAGES.index(link.stage), digest, ends)
        text = base64.urlsafe_b64encode(claims + self._mac(claims)).decode()
        return text, timestamp(datetime.fromtimestamp(ends, UTC))

    def read(self, token: str) -> Link:
        """What `token` gives the right to.

        Raises:
            LinkInvalid: it is not as it was made, in whatever bit.
            LinkExpired: it was made here, and its time is over.
        """
        try:
            signed = base64.b64decode(token, altchars=b"-_", validate=True)
        except ValueError as error:
            raise LinkInvalid from error
        claims, mac = signed[: _CLAIMS.size], signed[_CLAIMS.size :]
        if not hmac.compare_digest(mac, self._mac(claims)):
            raise LinkInvalid
        job, stage, digest, ends = _CLAIMS.unpack(claims)
        if ends <= self._clock().timestamp():
            raise LinkExpired(timestamp(datetime.fromtimestamp(ends, UTC)))
        return Link(str(uuid.UUID(bytes=job)), STAGES[stage], digest.hex())

    def _mac(self, claims: bytes) -> bytes:
        return hmac.digest(self._key, b"download\0" + claims, hashlib.sha256)[:_MAC_BYTES]
