"""Whether an artifact has to be uploaded for a promotion, decided from the job's state alone.

JobNotReadyForPromote   the job has not completed
SourceNotAvailable      the stage has made nothing
PromotionInProgress     another artifact is on its way to the same key, or one of a job that is to be deleted
TooManyPromotions       as many as may be are on their way
"""

from __future__ import annotations

from converter.common.lifecycle import pending
from converter.contracts.facts import PromotionFailed, PromotionRequested
from converter.contracts.job import JobRecord, JobStatus, Promotion, Stage, Timestamp

PENDING_MAX = 16


class JobNotReadyForPromote(Exception):
    """Only a completed job's artifacts can be promoted."""

    def __init__(self, status: JobStatus) -> None:
        super().__init__(f"the job is {status}")
        self.status = status


class SourceNotAvailable(Exception):
    """`source` has made nothing; `available` are the stages that have."""

    def __init__(self, source: Stage, available: tuple[Stage, ...]) -> None:
        super().__init__(f"{source} has made nothing; available: {', '.join(available)}")
        self.source, self.available = source, available


class PromotionInProgress(Exception):
    """`pending` is on its way, and must end before what was asked for can be done."""

    def __init__(self, pending: Promotion) -> None:
        super().__init__(f"{pending.source} is being uploaded to {pending.target_object_key!r}")
        self.pending = pending


class TooManyPromotions(Exception):
    """A job's record, which travels with each of its events, has room for `limit` promotions at once."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} promotions of this job are under way")
        self.limit = limit


def request_promotion(
    job: JobRecord, source: Stage, key: str, *, now: Timestamp, deadline: Timestamp, promotion_id: str
) -> PromotionRequested | Promotion:
    """A new promotion, or the one that already does or did exactly this.

    Raises:
        JobNotReadyForPromote, SourceNotAvailable, PromotionInProgress: it cannot be done now.
    """
    if job.status is not JobStatus.COMPLETED:
        raise JobNotReadyForPromote(job.status)
    if job.artifact(source) is None:
        raise SourceNotAvailable(source, tuple(stage for stage in job.stages if job.artifact(stage)))
    # Only the latest upload to a key says what lies there now.
    latest = next((past for past in reversed(job.promotions) if past.target_object_key == key), None)
    if latest and latest.status == "pending" and latest.source is not source:
        raise PromotionInProgress(latest)
    if latest and latest.status != "failed" and latest.source is source:
        return latest
    if len(pending(job)) >= PENDING_MAX:
        raise TooManyPromotions(PENDING_MAX)
    return PromotionRequested(
        at=now, promotion_id=promotion_id, source=source, target_object_key=key, deadline=deadline
    )


def out_of_time(promotion: Promotion, *, now: Timestamp) -> PromotionFailed:
    """Closes a promotion that is past its deadline: nothing is uploaded for it from here on."""
    return PromotionFailed(
        at=now,
        promotion_id=promotion.promotion_id,
        code="file_gateway_unavailable",
        message="The upload was not done by its deadline.",
    )
