"""The observer finds what must not be: each row is a history that breaks one invariant."""

from __future__ import annotations

import pytest

from . import observer
from .observer import Message

ARTIFACT = {"sha256": "a"}


def told(
    kind: str, status: str | None, revision: int, *, user: str = "u", job_id: str = "j", **fact: object
) -> Message:
    job = None
    if status:
        job = {
            "status": status,
            "revision": revision,
            "request": {"client_id": "c", "user_id": user},
            "stages": {"onnx": {"artifact": fact.get("artifact", ARTIFACT)}},
        }
    return Message(revision, f"{job_id}-{revision}", job_id, kind, {"type": kind, **fact}, job)


GOOD = [
    told("job.created", "queued", 1),
    told("stage.started", "running", 2, stage="onnx"),
    told("stage.completed", "completed", 3, stage="onnx", artifact=ARTIFACT),
    told("job.completed", "completed", 4),
    told("promotion.requested", "completed", 5),
    told("promotion.completed", "completed", 6),
    told("job.deleted", None, 7),
]


def found(messages: list[Message]) -> list[str]:
    return [
        *observer.path_in_the_graph(messages),
        *observer.effects_once(messages),
        *observer.one_active_job_each(messages),
    ]


def test_a_good_history_breaks_nothing():
    assert found(GOOD) == []


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ([*GOOD[:3], told("stage.completed", "completed", 4, stage="onnx", artifact=ARTIFACT)], "completed twice"),
        ([*GOOD[:2], GOOD[3]], "job.completed leads from running"),
        ([*GOOD[:4], told("job.cancelled", "cancelled", 5)], "completed became cancelled"),
        ([*GOOD[:2], told("stage.completed", "completed", 4, stage="onnx", artifact=ARTIFACT)], "has revision 4"),
        ([GOOD[0], GOOD[0]._replace(kind="stage.started")], "there twice"),
        ([*GOOD[:4], told("job.completed", "completed", 5)], "told twice"),
        ([*GOOD[:3], told("job.completed", "completed", 4, artifact={"sha256": "b"})], "changed"),
        ([GOOD[0], told("job.created", "queued", 1, job_id="k")], "active beside j"),
    ],
)
def test_a_broken_history_is_found(messages: list[Message], what: str):
    assert any(what in violation for violation in found(messages)), found(messages)


def test_another_user_may_have_an_active_job_at_the_same_time():
    assert list(observer.one_active_job_each([GOOD[0], told("job.created", "queued", 1, job_id="k", user="v")])) == []
