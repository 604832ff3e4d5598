"""What the janitor may do about a job, decided from its state. Nothing here does I/O."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import PurePosixPath

from converter.common.identifiers import made_at
from converter.common.lifecycle import State, pending
from converter.common.promotion import out_of_time
from converter.contracts.facts import JobDeleted, PromotionFailed
from converter.contracts.job import STAGES, JobRecord, moment, timestamp


def ending(job_id: str, state: State, *, now: datetime, creation: timedelta) -> JobDeleted | PromotionFailed | None:
    """The fact that has to be published before anything of the job may go; none where it stays, or is deleted already.

    Args:
        job_id: the job.
        state: after its last event.
        now: the present.
        creation: how long after its id was made a job may still be created. One that is older and was not, never
            will be: its gateway may only be asleep, but finds its `job.created` refused.
    """
    if state is None:
        return JobDeleted(at=timestamp(now), reason="superseded") if made_at(job_id) + creation <= now else None
    if not isinstance(state, JobRecord) or state.active or moment(state.expires_at) > now:
        return None
    for promotion in pending(state):
        # A job is not deleted under a promotion; whoever waited for this one may have died.
        return out_of_time(promotion, now=timestamp(now)) if moment(promotion.deadline) <= now else None
    return JobDeleted(at=timestamp(now), reason="expired")


def lost(job: JobRecord, object_key: str) -> bool:
    """Whether `object_key`, below the prefix of a job that has ended, is of an attempt that did not count.

    What counted is all that lies beside the artifact of a stage, or the log of the attempt that failed it. Whatever
    lies outside of the attempts belongs to the inputs, or to a release that knows more.
    """
    match object_key.split("/"):
        case ["jobs", job_id, name, _, *_, _] if job_id == job.job_id and name in STAGES:
            stage = next((state for stage, state in job.stages.items() if stage == name), None)
            if stage is None:
                return True
            if stage.artifact is not None:
                return PurePosixPath(object_key).parent != PurePosixPath(stage.artifact.object_key).parent
            return stage.log is None or object_key != stage.log.object_key
    return False
