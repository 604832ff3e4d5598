"""The list of a user's jobs in pages: what a query asks for, and the cursor that says where the next page begins.

A cursor holds the last job of its page. Ids are UUIDv7, so jobs that arrive later sort before it and change no page
that is still to come. It is signed for the client, the user and the filter that it was made for, and says nothing else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping

from msgspec import Struct

from converter.contracts.job import JobStatus
from converter.gateway.http.errors import FieldError, bad_fields
from converter.gateway.http.query import read_query
from converter.gateway.http.written import shown
from converter.gateway.openapi.documentation import Parameter

LIMIT_DEFAULT, LIMIT_MAX = 20, 100
LIMIT = Parameter(
    "limit", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}, "How many."
)
USER_ID_PATTERN = "^[A-Za-z0-9._-]{1,128}$"
_USER_ID = re.compile(USER_ID_PATTERN)
_MAC_BYTES = 16
_JOB_ID_BYTES = 16
_CURSOR = re.compile(r"[A-Za-z0-9_-]{43}")
"""So many characters are both of them in base64."""


class JobQuery(Struct, frozen=True, kw_only=True):
    """Which jobs to list; those after the job `after`, where there is one."""

    user_id: str
    status: JobStatus | None = None
    limit: int = LIMIT_DEFAULT
    after: str | None = None

    @classmethod
    def parse(cls, query_string: bytes, cursors: Cursors, client_id: str) -> JobQuery:
        """The query in a URL of the client's.

        Raises:
            Refusal: `validation_error` that names every bad parameter.
        """
        given, problems = read_query(query_string, ("user_id", "status", "limit", "cursor"))
        user_id, status, limit = given.get("user_id"), given.get("status"), limit_in(given, problems)
        if user_id is None:
            problems.append(FieldError("user_id", "missing"))
        elif not _USER_ID.fullmatch(user_id):
            problems.append(FieldError("user_id", f"found {shown(user_id)}; allowed: 1 to 128 of A-Z a-z 0-9 . _ -"))
        if status is not None and status not in list(JobStatus):
            problems.append(FieldError("status", f"found {shown(status)}; allowed: {', '.join(JobStatus)}"))
        cursor, after = given.get("cursor"), None
        if cursor is not None:
            after = cursors.read(cursor, client_id, user_id or "", status)
            # What it is a cursor of cannot be told as long as that is bad.
            if after is None and (not problems or not _CURSOR.fullmatch(cursor)):
                message = "not a cursor of this list; allowed: next_cursor of its last page"
                problems.append(FieldError("cursor", message))
        if problems or user_id is None:
            raise bad_fields(problems)
        return cls(user_id=user_id, status=JobStatus(status) if status else None, limit=limit, after=after)


def limit_in(given: Mapping[str, str], problems: list[FieldError]) -> int:
    """How many jobs a page may have; adds to `problems` when that is no number, or too large."""
    text = given.get("limit", str(LIMIT_DEFAULT))
    if re.fullmatch(r"[0-9]{1,3}", text) and 1 <= int(text) <= LIMIT_MAX:
        return int(text)
    problems.append(FieldError("limit", f"found {shown(text)}; allowed: 1 to {LIMIT_MAX}"))
    return LIMIT_DEFAULT


class Cursors:
    """Makes and reads cursors.

    Args:
        key: shared by all gateways.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def after(self, job_id: str, client_id: str, user_id: str, status: str | None) -> str:
        """The cursor of the page that begins after `job_id`."""
        place = bytes.fromhex(job_id.replace("-", ""))
        return base64.urlsafe_b64encode(place + self._mac(place, client_id, user_id, status)).decode().rstrip("=")

    def read(self, cursor: str, client_id: str, user_id: str, status: str | None) -> str | None:
        """The job after which its page begins; none if it was not made here, or for another list."""
        try:
            token = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            return None
        place, mac = token[:_JOB_ID_BYTES], token[_JOB_ID_BYTES:]
        if not hmac.compare_digest(mac, self._mac(place, client_id, user_id, status)):
            return None
        digits = place.hex()
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def _mac(self, place: bytes, client_id: str, user_id: str, status: str | None) -> bytes:
        of = "\0".join((client_id, user_id, status or "")).encode()
        return hmac.digest(self._key, b"cursor\0" + place + of, hashlib.sha256)[:_MAC_BYTES]
