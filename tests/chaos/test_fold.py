"""Recorded histories fold to the records that they carry, and a record that says something else is found."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
from recorded import histories

from .fold import Json, Step, disagreements

HISTORIES = {
    name: [Step(each["payload"]["fact"], each["payload"]["job"]) for each in told] for name, told in histories()
}


@pytest.mark.parametrize("steps", HISTORIES.values(), ids=HISTORIES.keys())
def test_what_was_recorded_folds_to_its_records(steps: list[Step]):
    assert list(disagreements(steps)) == []


def other_status(job: Json) -> None:
    job["status"] = "running" if job["status"] != "running" else "queued"


def other_artifact(job: Json) -> None:
    job["stages"]["onnx"]["artifact"]["sha256"] = "0" * 64


def another_charge(job: Json) -> None:
    job["stages"]["onnx"]["charged"] += 1


def no_announcement(job: Json) -> None:
    job["announced"] = not job["announced"]


def promotion_undone(job: Json) -> None:
    job["promotions"][0]["status"] = "pending"


def other_user(job: Json) -> None:
    job["request"]["user_id"] = "somebody"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (other_status, "status is"),
        (other_artifact, "stages is"),
        (another_charge, "stages is"),
        (no_announcement, "announced is"),
        (promotion_undone, "promotions is"),
        (other_user, "request is"),
    ],
)
def test_a_record_that_the_facts_do_not_give_is_found(change: Callable[[Json], None], what: str):
    steps = copy.deepcopy(HISTORIES["v1-promoted"])
    last = next(step for step in reversed(steps) if step.job)
    assert last.job is not None
    change(last.job)
    [found] = disagreements(steps)
    assert what in found


def test_a_record_that_outlives_its_deletion_is_found():
    steps = HISTORIES["v1-promoted"]
    assert steps[-1].job is None
    [found] = disagreements([*steps[:-1], Step(steps[-1].fact, steps[-2].job)])
    assert "the record is there" in found
