from __future__ import annotations

from datetime import UTC, datetime, timedelta

import jobs
import pytest
from msgspec.structs import replace

from converter.common.identifiers import made_at, uuid7
from converter.common.lifecycle import Deleted, State, evolve
from converter.contracts.facts import (
    AnyFact,
    JobCancelled,
    JobDeleted,
    JobFailed,
    PromotionFailed,
    PromotionRequested,
    StageFailed,
    StageReleased,
)
from converter.contracts.failures import job_error
from converter.contracts.job import JobRecord, Stage, StoredObject, moment, timestamp
from converter.gateway.janitor.rules import ending, lost

EXPIRY = moment(jobs.AT)
CREATION = timedelta(hours=1)
ERROR = job_error("stage_crashed", "crashed", stage=Stage.ONNX)
DONE = (jobs.started(Stage.ONNX), jobs.completed(Stage.ONNX))


def job(*facts: AnyFact) -> JobRecord:
    """A job with the target `onnx` after `facts`."""
    state: State = None
    for fact in (jobs.created(last_stage=Stage.ONNX), *facts):
        state = evolve(state, fact)
    assert isinstance(state, JobRecord)
    return state


def ended(state: State, now: datetime = EXPIRY) -> AnyFact | None:
    return ending(state.job_id if isinstance(state, JobRecord) else uuid7(), state, now=now, creation=CREATION)


@pytest.mark.parametrize("facts", [(), DONE[:1], (DONE[0], StageReleased(at=jobs.AT, stage=Stage.ONNX, attempt=1))])
def test_an_active_job_stays_however_long_it_is_past_its_time(facts: tuple[AnyFact, ...]) -> None:
    assert ended(job(*facts), EXPIRY + timedelta(days=1000)) is None


@pytest.mark.parametrize("facts", [DONE, (JobCancelled(at=jobs.AT),), (JobFailed(at=jobs.AT, error=ERROR),)])
def test_a_job_that_has_ended_is_deleted_when_its_time_has_come_and_not_before(facts: tuple[AnyFact, ...]) -> None:
    over = job(*facts)
    assert ended(over, EXPIRY - timedelta(milliseconds=1)) is None
    fact = ended(over, EXPIRY)
    assert fact == JobDeleted(at=timestamp(EXPIRY), reason="expired")
    assert evolve(over, fact) == Deleted()


def test_a_promotion_holds_a_job_until_its_deadline_and_is_closed_then() -> None:
    deadline = EXPIRY + timedelta(minutes=5)
    requested = PromotionRequested(
        at=jobs.AT, promotion_id="p", source=Stage.ONNX, target_object_key="k", deadline=timestamp(deadline)
    )
    promoted = job(*DONE, requested)
    assert ended(promoted, deadline - timedelta(milliseconds=1)) is None
    closed = ended(promoted, deadline)
    assert isinstance(closed, PromotionFailed)
    assert isinstance(ended(evolve(promoted, closed), deadline), JobDeleted)


def test_a_job_that_was_not_created_never_will_be_once_its_upload_is_out_of_time() -> None:
    job_id = uuid7()
    last = made_at(job_id) + CREATION
    assert ending(job_id, None, now=last - timedelta(milliseconds=1), creation=CREATION) is None
    assert ending(job_id, None, now=last, creation=CREATION) == JobDeleted(at=timestamp(last), reason="superseded")


def test_a_deleted_job_needs_no_further_fact() -> None:
    assert ended(Deleted(), datetime.now(UTC)) is None


def test_what_counted_stays_and_other_attempts_are_lost() -> None:
    over = job(jobs.started(Stage.ONNX), jobs.started(Stage.ONNX, 2, "other"), jobs.completed(Stage.ONNX, 2))
    keys = ["input/model.onnx", "input/reference.zip", "onnx/1/artifact", "onnx/1/log", "onnx/2/artifact", "bie/1/log"]
    keys += ["onnx/2/something-newer", "provenance", "later/1/made", "onnx/12/artifact", "onnx/2/reused/artifact"]
    lost_ones = {key for key in keys if lost(over, f"jobs/{over.job_id}/{key}")}
    assert lost_ones == {"onnx/1/artifact", "onnx/1/log", "bie/1/log", "onnx/12/artifact", "onnx/2/reused/artifact"}
    assert not lost(over, "jobs/another/onnx/1/artifact")


def test_of_a_reused_artifact_what_lies_beside_it_stays() -> None:
    made = jobs.completed(Stage.ONNX)
    reused = replace(made, artifact=replace(made.artifact, object_key="jobs/j/onnx/1/reused/artifact"), cached=True)
    over = job(jobs.started(Stage.ONNX), reused)
    assert not lost(over, "jobs/j/onnx/1/reused/provenance")
    assert lost(over, "jobs/j/onnx/2/reused/artifact")


def test_of_the_attempt_that_failed_its_log_stays() -> None:
    log = StoredObject(object_key="jobs/j/onnx/1/log", size_bytes=1, sha256=jobs.SHA)
    failed = job(jobs.started(Stage.ONNX), StageFailed(at=jobs.AT, stage=Stage.ONNX, attempt=1, error=ERROR, log=log))
    assert not lost(failed, log.object_key)
    assert lost(failed, "jobs/j/onnx/1/artifact")


def test_what_a_cancelled_attempt_has_stored_is_lost() -> None:
    cancelled = job(jobs.started(Stage.ONNX), JobCancelled(at=jobs.AT))
    assert lost(cancelled, "jobs/j/onnx/1/artifact")
    assert not lost(replace(cancelled, job_id="other"), "jobs/j/onnx/1/artifact")
