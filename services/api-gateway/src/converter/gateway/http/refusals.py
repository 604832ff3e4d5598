"""What the layers below raise, as answers to the client."""

from __future__ import annotations

from functools import singledispatch

from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException

from converter.common.bus import BusFull, BusRefused, EventBusUnavailable
from converter.common.identifiers import made_at
from converter.common.promotion import JobNotReadyForPromote, PromotionInProgress, SourceNotAvailable, TooManyPromotions
from converter.common.storage import BucketMissing, StorageFull, StorageUnavailable
from converter.common.users import UserHasActiveJob
from converter.contracts.job import JobStatus, timestamp
from converter.gateway.clients.jwks import KeysUnavailable
from converter.gateway.clients.tokens import NotAuthentic
from converter.gateway.http.body import ClientGone
from converter.gateway.http.errors import Refusal
from converter.gateway.http.headers import challenge
from converter.gateway.http.written import shown

PROMOTIONS_RETRY_AFTER_S = 10


@singledispatch
def refusal_of(error: Exception) -> Refusal:  # noqa: ARG001 - what is unknown is told to the log, not to the client
    """The answer that `error` amounts to; what nothing is known of is `internal_error`."""
    return Refusal("internal_error")


@refusal_of.register
def _(error: Refusal) -> Refusal:
    return error


@refusal_of.register
def _(error: NotAuthentic) -> Refusal:
    header = challenge("invalid_token", error_description=error.why)
    return Refusal(error.code, error.why, headers={"WWW-Authenticate": header})


@refusal_of.register
def _(_: KeysUnavailable) -> Refusal:
    return Refusal("auth_service_unavailable")


@refusal_of.register(EventBusUnavailable)
@refusal_of.register(BusRefused)
def _(_: Exception) -> Refusal:
    return Refusal("event_bus_unavailable")


@refusal_of.register
def _(_: BusFull) -> Refusal:
    return Refusal("event_bus_full")


@refusal_of.register
def _(_: StorageUnavailable) -> Refusal:
    return Refusal("storage_unavailable")


@refusal_of.register
def _(_: StorageFull) -> Refusal:
    return Refusal("storage_full")


@refusal_of.register
def _(_: BucketMissing) -> Refusal:
    return Refusal("misconfiguration")


@refusal_of.register
def _(error: UserHasActiveJob) -> Refusal:
    # Without a record the job is being created this very moment; its id tells when that began.
    active = error.active
    return Refusal(
        "user_has_active_job",
        details={
            "active_job_id": error.job_id,
            "active_job_status": active.status if active else JobStatus.QUEUED,
            "active_job_created_at": active.created_at if active else timestamp(made_at(error.job_id)),
        },
    )


@refusal_of.register
def _(error: JobNotReadyForPromote) -> Refusal:
    return Refusal("job_not_ready_for_promote", details={"job_status": error.status})


@refusal_of.register
def _(error: SourceNotAvailable) -> Refusal:
    return Refusal("source_not_available", details={"source": error.source, "available": list(error.available)})


@refusal_of.register
def _(error: PromotionInProgress) -> Refusal:
    pending = error.pending
    return Refusal(
        "promotion_in_progress",
        f"The artifact of {pending.source} is on its way to {shown(pending.target_object_key)}.",
        details={
            "promotion_id": pending.promotion_id,
            "source": pending.source,
            "target_object_key": pending.target_object_key,
        },
    )


@refusal_of.register
def _(error: TooManyPromotions) -> Refusal:
    return Refusal("service_busy", f"{error}.", headers={"Retry-After": str(PROMOTIONS_RETRY_AFTER_S)})


@refusal_of.register
def _(_: ClientGone) -> Refusal:
    # For the log alone: the one who would read it has gone.
    return Refusal("request_timeout", "The client closed the connection.")


@refusal_of.register
def _(_: NotFoundException) -> Refusal:
    return Refusal("not_found")


@refusal_of.register
def _(error: MethodNotAllowedException) -> Refusal:
    methods = {method.strip() for method in (error.headers or {}).get("allow", "").split(",")}
    if "GET" in methods:
        methods.add("HEAD")
    return Refusal("method_not_allowed", headers={"Allow": ", ".join(sorted(methods))})


@refusal_of.register
def _(error: HTTPException) -> Refusal:
    if error.status_code >= 500:  # noqa: PLR2004 - the server's own errors start there
        return Refusal("internal_error")
    return Refusal("validation_error", error.detail or None, details={"hint": "The message says what cannot be read."})
