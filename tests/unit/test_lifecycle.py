"""No sequence of facts leads a job where its life does not go."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import AT, completed, created, started

from converter.common.lifecycle import Deleted, IllegalTransition, State, evolve, pending
from converter.contracts.facts import (
    AnyFact,
    JobCancelled,
    JobCompleted,
    JobDeleted,
    JobFailed,
    PromotionCompleted,
    PromotionFailed,
    PromotionRequested,
    StageFailed,
    StageReleased,
    StageStarted,
)
from converter.contracts.failures import job_error
from converter.contracts.job import STAGES, JobRecord, JobStatus, Stage

GRAPH = {
    (None, "queued"),
    (None, "deleted"),
    ("queued", "running"),
    ("queued", "failed"),
    ("queued", "cancelled"),
    ("running", "queued"),
    ("running", "completed"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("completed", "deleted"),
    ("failed", "deleted"),
    ("cancelled", "deleted"),
}


stages = st.sampled_from(STAGES)
attempts = st.integers(1, 4)
promotion_ids = st.sampled_from(["p1", "p2", "p3"])
ERROR = job_error("conversion_failed", "no")
facts: st.SearchStrategy[AnyFact] = st.one_of(
    st.builds(lambda stage: created(last_stage=stage), stages),
    st.builds(
        lambda s, a, w: StageStarted(at=AT, stage=s, attempt=a, worker=w), stages, attempts, st.sampled_from("ab")
    ),
    st.builds(lambda s, a: StageReleased(at=AT, stage=s, attempt=a), stages, attempts),
    st.builds(completed, stages, attempts),
    st.builds(lambda s, a: StageFailed(at=AT, stage=s, attempt=a, error=ERROR), stages, attempts),
    st.just(JobCompleted(at=AT)),
    st.just(JobFailed(at=AT, error=ERROR)),
    st.just(JobCancelled(at=AT)),
    st.just(JobDeleted(at=AT, reason="requested")),
    st.builds(
        lambda p, s, k: PromotionRequested(at=AT, promotion_id=p, source=s, target_object_key=k, deadline=AT),
        promotion_ids,
        stages,
        st.sampled_from(["x", "y"]),
    ),
    st.builds(lambda p: PromotionCompleted(at=AT, promotion_id=p), promotion_ids),
    st.builds(lambda p: PromotionFailed(at=AT, promotion_id=p, code="c", message="m"), promotion_ids),
)


def likely_next(state: State) -> st.SearchStrategy[AnyFact]:
    """Mostly facts that lead on from `state`, so that long lives are seen; now and then any fact at all."""
    if state is None:
        return st.one_of(st.builds(lambda stage: created(last_stage=stage), stages), facts)
    if isinstance(state, JobRecord) and state.stage is not None and state.active:
        here = state.stages[state.stage]
        step: AnyFact = (
            completed(state.stage, here.attempt)
            if here.worker
            else StageStarted(at=AT, stage=state.stage, attempt=here.attempt + 1, worker="w")
        )
        return st.one_of(st.just(step), facts)
    return facts


def name_of(state: State) -> str | None:
    return state.status.value if isinstance(state, JobRecord) else "deleted" if state else None


def check_whole(job: JobRecord) -> None:
    assert (job.status is JobStatus.RUNNING) == any(state.worker for state in job.stages.values())
    assert job.active == (job.completed_at is None)
    assert (job.error is not None) == (job.status is JobStatus.FAILED)
    done = [state.artifact is not None for state in job.stages.values()]
    assert done == sorted(done, reverse=True), "a stage is done only after those before it"
    assert all(done) == (job.status is JobStatus.COMPLETED)
    assert not (job.announced and job.active)
    assert all(0 <= state.charged <= state.attempt for state in job.stages.values())
    keys = [promotion.target_object_key for promotion in pending(job)]
    assert len(keys) == len(set(keys))


@settings(max_examples=300)
@given(st.data())
def test_every_history_is_a_path_in_the_graph_and_repeating_a_fact_changes_nothing(data: st.DataObject) -> None:
    state: State = None
    for _ in range(data.draw(st.integers(1, 25))):
        fact = data.draw(likely_next(state))
        try:
            after = evolve(state, fact)
        except IllegalTransition:
            continue
        before_name, after_name = name_of(state), name_of(after)
        assert before_name == after_name or (before_name, after_name) in GRAPH
        if isinstance(after, JobRecord):
            check_whole(after)
            assert evolve(after, fact) is after
            revision = state.revision if isinstance(state, JobRecord) else 0
            assert after.revision == revision + (after is not state)
        elif isinstance(after, Deleted):
            assert isinstance(evolve(after, JobDeleted(at=AT, reason="expired")), Deleted)
        state = after


@given(st.lists(facts, max_size=20))
def test_nothing_follows_a_deletion(later: list[AnyFact]) -> None:
    for fact in later:
        if isinstance(fact, JobDeleted):
            continue
        with pytest.raises(IllegalTransition):
            evolve(Deleted(), fact)


def life(*steps: AnyFact) -> JobRecord:
    state: State = None
    for step in steps:
        state = evolve(state, step)
    assert isinstance(state, JobRecord)
    return state


def test_a_job_that_stops_after_onnx_is_complete_with_it() -> None:
    job = life(created(last_stage=Stage.ONNX), started(Stage.ONNX), completed(Stage.ONNX, 1))
    assert job.status is JobStatus.COMPLETED
    assert list(job.stages) == [Stage.ONNX]
    assert not job.announced


def test_a_released_attempt_is_not_charged_and_its_number_is_not_used_again() -> None:
    job = life(created(), started(Stage.ONNX), StageReleased(at=AT, stage=Stage.ONNX, attempt=1))
    assert (job.stages[Stage.ONNX].attempt, job.stages[Stage.ONNX].charged) == (1, 0)
    assert evolve(job, started(Stage.ONNX, 1)) is job
    again = evolve(job, started(Stage.ONNX, 2))
    assert isinstance(again, JobRecord)
    assert again.stages[Stage.ONNX].charged == 1


def test_an_attempt_that_another_worker_holds_is_not_taken_for_ones_own() -> None:
    job = life(created(), started(Stage.ONNX, 1, "quick"))
    with pytest.raises(IllegalTransition, match="attempt 2 comes next"):
        evolve(job, started(Stage.ONNX, 1, "slow"))


def test_a_worker_whose_attempt_was_taken_over_cannot_complete_the_stage() -> None:
    job = life(created(), started(Stage.ONNX, 1, "asleep"), started(Stage.ONNX, 2, "awake"))
    with pytest.raises(IllegalTransition, match="attempt 1 does not hold"):
        evolve(job, completed(Stage.ONNX, 1))


def test_a_promotion_that_was_closed_as_failed_cannot_complete_later() -> None:
    job = life(
        created(last_stage=Stage.ONNX),
        started(Stage.ONNX),
        completed(Stage.ONNX, 1),
        PromotionRequested(at=AT, promotion_id="p", source=Stage.ONNX, target_object_key="k", deadline=AT),
        PromotionFailed(at=AT, promotion_id="p", code="file_gateway_unavailable", message="too late"),
    )
    with pytest.raises(IllegalTransition, match="has failed"):
        evolve(job, PromotionCompleted(at=AT, promotion_id="p"))


def test_a_job_with_a_pending_promotion_is_not_deleted() -> None:
    job = life(
        created(last_stage=Stage.ONNX),
        started(Stage.ONNX),
        completed(Stage.ONNX, 1),
        PromotionRequested(at=AT, promotion_id="p", source=Stage.ONNX, target_object_key="k", deadline=AT),
    )
    with pytest.raises(IllegalTransition, match="pending"):
        evolve(job, JobDeleted(at=AT, reason="requested"))


def test_ended_promotions_are_forgotten_before_the_record_outgrows_a_message() -> None:
    state: State = life(created(last_stage=Stage.ONNX), started(Stage.ONNX), completed(Stage.ONNX, 1))
    for number in range(80):
        request = PromotionRequested(
            at=AT, promotion_id=str(number), source=Stage.ONNX, target_object_key="k" * 1024, deadline=AT
        )
        state = evolve(evolve(state, request), PromotionCompleted(at=AT, promotion_id=str(number)))
    assert isinstance(state, JobRecord)
    assert [promotion.promotion_id for promotion in state.promotions] == [str(number) for number in range(60, 80)]
