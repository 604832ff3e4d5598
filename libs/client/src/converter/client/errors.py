"""What can go wrong, each with what a caller needs to decide on.

ConverterError
  Unreachable             no answer: not connected, or the connection broke
  NotTheContract          an answer that no gateway gives; something else listens there
  NoToken                 the issuer gave no token
  Misconfigured           an address or a token is malformed
    InsecureUrl             a secret would travel in the clear
  Refused                 the gateway said no: `code`, `status`, `hint`, `fields`, `request_id`
    InvalidRequest          400, 413, 415, 416, 422 and the like: sent again, it is refused again
    Unauthenticated         401, also with a token just renewed
    Forbidden               403
    NotFound                404, 410
    Conflict                409, 412
      UserHasActiveJob        `active_job_id` is the one
    RateLimited             429
    Unavailable             408, 5xx: it was asked again already, for as long as the client has patience
  JobFailed               `job.error` says why
  JobCancelled
  JobDeleted              while it was waited for
  PromotionFailed         `promotion.error` says why; the job stays completed
  WaitTimedOut            the job goes on
  DigestMismatch          what arrived is not what was made
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converter.client.resources import Job, Promotion


class ConverterError(Exception):
    """Anything that this library raises.

    Args:
        message: a sentence with the facts.
        code: stable, for programs.
        hint: what to do about it.
    """

    def __init__(self, message: str, *, code: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.code, self.hint = message, code, hint


class Unreachable(ConverterError):
    """No answer from `url`. Unless `sent`, the request has not arrived there."""

    def __init__(self, url: str, why: str, *, sent: bool) -> None:
        super().__init__(
            f"no answer from {url}: {why}", code="unreachable", hint="Check the address, and that the service runs."
        )
        self.url, self.sent = url, sent


class NotTheContract(ConverterError):
    """`url` answered what no gateway answers."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(
            f"{url} answered something unexpected: {why}",
            code="not_the_contract",
            hint="Check the address: another server, or a proxy, may have answered.",
        )
        self.url = url


class NoToken(ConverterError):
    """The issuer at `token_url` gave no token. `transient`: it may do so when asked again."""

    def __init__(self, token_url: str, why: str, *, transient: bool) -> None:
        hint = "Try again later." if transient else "Check the client's id and secret, its scopes and the audience."
        super().__init__(f"no token from {token_url}: {why}", code="no_token", hint=hint)
        self.token_url, self.transient = token_url, transient


class Misconfigured(ConverterError):
    """An address or a token is malformed."""

    def __init__(self, message: str, *, code: str = "misconfigured", hint: str | None = None) -> None:
        super().__init__(message, code=code, hint=hint)


class InsecureUrl(Misconfigured):
    """A secret would be sent to `url`, which is neither https nor on this machine."""

    def __init__(self, url: str) -> None:
        hint = "Use https, or allow http knowingly."
        super().__init__(f"{url} would get secrets in the clear", code="insecure_url", hint=hint)
        self.url = url


class Refused(ConverterError):
    """The gateway's error envelope.

    Args:
        status: HTTP's.
        code: a row of the gateway's table; `http_` and the status where another server or a proxy answered.
        message: a sentence with the facts.
        details: facts for programs; `hint` and `fields` are taken from them.
        request_id: finds the request in the service's logs.
        retry_after_s: how long to wait, where the gateway says it.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.details = dict(details or {})
        super().__init__(message, code=code, hint=self.details.get("hint"))
        self.status, self.request_id, self.retry_after_s = status, request_id, retry_after_s

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def fields(self) -> dict[str, str]:
        """What is wrong with each bad field, by its name."""
        found = self.details.get("fields")
        return {str(each.get("field")): str(each.get("message")) for each in found} if isinstance(found, list) else {}


class InvalidRequest(Refused):
    """The request cannot be served as it is."""


class Unauthenticated(Refused):
    """The token is not accepted."""


class Forbidden(Refused):
    """The token does not grant it."""


class NotFound(Refused):
    """There is no such thing, or it is another client's."""


class Conflict(Refused):
    """The job is in another state than this needs."""


class UserHasActiveJob(Conflict):
    """One active job for each user."""

    @property
    def active_job_id(self) -> str:
        """The job that is active."""
        return str(self.details.get("active_job_id", ""))


class RateLimited(Refused):
    """Too many requests; `retry_after_s` says when to go on."""


class Unavailable(Refused):
    """The service, or something that it needs, does not work now."""


_BY_STATUS: dict[int, type[Refused]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    408: Unavailable,
    409: Conflict,
    410: NotFound,
    412: Conflict,
    429: RateLimited,
}
_BY_CODE: dict[str, type[Refused]] = {"user_has_active_job": UserHasActiveJob}


def kind_of(status: int, code: str) -> type[Refused]:
    """The class of the error that an answer with this status and code is raised as."""
    unavailable = status >= 500  # noqa: PLR2004 - the server's own errors start there
    return _BY_CODE.get(code) or _BY_STATUS.get(status) or (Unavailable if unavailable else InvalidRequest)


class JobFailed(ConverterError):
    """The conversion failed; `job.error` has the node, the operator and the evidence where they are known."""

    def __init__(self, job: Job) -> None:
        error = job.error
        code, message = (error.code, error.message) if error else ("job_failed", "no reason is told")
        super().__init__(f"{code}: {message}", code=code, hint=error.hint if error else None)
        self.job = job


class JobCancelled(ConverterError):
    """Somebody cancelled the job."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"the job {job.job_id} was cancelled", code="job_cancelled")
        self.job = job


class JobDeleted(ConverterError):
    """The job is gone."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"the job {job_id} was deleted", code="job_deleted")
        self.job_id = job_id


class PromotionFailed(ConverterError):
    """The file store does not have the artifact; the job stays completed and can be promoted again."""

    def __init__(self, promotion: Promotion) -> None:
        error = promotion.error
        code, message = (error.code, error.message) if error else ("promotion_failed", "no reason is told")
        hint = "The job stays completed; promote it again, to another key where the file store refuses this one."
        super().__init__(f"{code}: {message}", code=code, hint=hint)
        self.promotion = promotion


class WaitTimedOut(ConverterError, TimeoutError):
    """The job `job_id` had not ended in time; it goes on."""

    def __init__(self, job_id: str, timeout_s: float) -> None:
        super().__init__(
            f"the job {job_id} has not ended within {timeout_s:g} s", code="wait_timed_out", hint="It goes on."
        )
        self.job_id = job_id


class DigestMismatch(ConverterError):
    """What was downloaded does not have the digest of what was made; it was not kept."""

    def __init__(self, filename: str, expected: str, found: str) -> None:
        super().__init__(
            f"{filename} arrived with sha256 {found}, it was made with {expected}",
            code="download_digest_mismatch",
            hint="Download it again; if it happens again, something on the way changes it.",
        )
        self.filename, self.expected, self.found = filename, expected, found
