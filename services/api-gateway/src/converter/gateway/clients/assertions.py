"""Which user a request is for, where the upstream's word is not enough (`USER_ASSERTION`).

    off      whichever it names: the upstream is trusted to be right
    token    the token's own `user_id` claim, else its `sub`, as a token exchange makes it (RFC 8693)
    hmac     the header `X-User-Assertion: <user_id>:<seconds since 1970>:<hmac>`, in which hmac is the HMAC-SHA256 of
             what stands before it (`<user_id>:<seconds since 1970>`) in lower-case hexadecimal digits

A client whose user is known sees that user's jobs alone, and posts and lists for nobody else.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Iterable
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from converter.gateway.clients.tokens import NotAuthentic, Principal
from converter.gateway.http.errors import Refusal
from converter.gateway.http.headers import Header, challenge

HEADER = b"x-user-assertion"
_ASSERTION = re.compile(rb"((?P<user>[A-Za-z0-9._-]{1,128}):(?P<at>[0-9]{1,12})):(?P<mac>[0-9a-f]{64})")

Mode = Literal["off", "token", "hmac"]


class UserAssertions(Struct, frozen=True, kw_only=True):
    """How users are asserted here.

    Args:
        mode: see above.
        secret: shared with whoever signs.
        skew_s: how far the time of an assertion may be from now, before and after.
        clock: seconds since 1970.
    """

    mode: Mode = "off"
    secret: bytes = b""
    skew_s: float = 60.0
    clock: Callable[[], float] = time.time

    def bind(self, principal: Principal, headers: Iterable[Header]) -> Principal:
        """`principal`, bound to the user for whom the request is, where that has to be asserted.

        Raises:
            NotAuthentic: the token names no user.
            Refusal: `user_assertion_invalid`.
        """
        if self.mode == "off":
            return principal
        if self.mode == "hmac":
            return replace(principal, user_id=self._signed(headers))
        if principal.claimed_user is None:
            raise NotAuthentic("invalid_token", "The token does not name a user (user_id, sub).")
        return replace(principal, user_id=principal.claimed_user)

    def _signed(self, headers: Iterable[Header]) -> str:
        sent = [value for name, value in headers if name == HEADER]
        found = _ASSERTION.fullmatch(sent[0]) if len(sent) == 1 else None
        if found is None:
            raise _invalid("is missing, sent more than once or malformed")
        expected = hmac.digest(self.secret, found[1], hashlib.sha256).hex().encode()
        if not hmac.compare_digest(found["mac"], expected):
            raise _invalid("is not signed with the shared secret")
        if abs(self.clock() - int(found["at"])) > self.skew_s:
            raise _invalid(f"is more than {self.skew_s:g} s from now")
        return found["user"].decode()


def _invalid(why: str) -> Refusal:
    header = challenge("insufficient_scope")
    return Refusal("user_assertion_invalid", f"X-User-Assertion {why}.", headers={"WWW-Authenticate": header})
