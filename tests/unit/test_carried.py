"""What a newer release has added to a record outlives a writer that does not know it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from jobs import AT, completed, created, started

from converter.common.carried import Carrier, succeeded
from converter.common.lifecycle import evolve
from converter.contracts.facts import AnyFact, JobCompleted, PromotionCompleted, PromotionRequested
from converter.contracts.job import JobRecord, Stage

PROMOTION = PromotionRequested(at=AT, promotion_id="p1", source=Stage.ONNX, target_object_key="k", deadline=AT)
NEXT: list[AnyFact] = [
    started(Stage.ONNX),
    completed(Stage.ONNX),
    JobCompleted(at=AT),
    PROMOTION,
    PromotionCompleted(at=AT, promotion_id="p1"),
]


def job_after(facts: list[AnyFact]) -> JobRecord:
    state = evolve(None, created(last_stage=Stage.ONNX))
    for fact in facts:
        state = evolve(state, fact)
    assert isinstance(state, JobRecord)
    return state


def published(read: dict[str, Any], fact: AnyFact) -> dict[str, Any]:
    raw = msgspec.Raw(msgspec.json.encode(read))
    known = Carrier(raw).record()
    assert known
    after = evolve(known, fact)
    assert isinstance(after, JobRecord)
    written: dict[str, Any] = msgspec.json.decode(succeeded(raw, known, after))
    assert msgspec.convert(written, JobRecord) == after, "nothing that is known has changed"
    return written


@pytest.mark.parametrize("count", range(len(NEXT)), ids=[type(fact).__name__ for fact in NEXT])
def test_a_field_of_a_newer_release_is_kept_wherever_it_stands(count: int) -> None:
    read = msgspec.to_builtins(job_after(NEXT[:count]))
    read["priority"] = {"weight": [1, 2]}
    read["request"]["purpose"] = "trial"
    read["request"]["options"]["preprocess"]["gamma"] = 2.2
    read["stages"]["onnx"]["provenance"] = None
    for promotion in read["promotions"]:
        promotion["checked"] = True

    written = published(read, NEXT[count])
    assert written["priority"] == {"weight": [1, 2]}
    assert written["request"] == read["request"]
    assert written["stages"]["onnx"]["provenance"] is None
    assert [promotion["checked"] for promotion in written["promotions"][: len(read["promotions"])]] == [True] * len(
        read["promotions"]
    )


def test_what_is_known_and_gone_does_not_come_back() -> None:
    """A worker's name is left out once it holds nothing; that is no field of a newer release."""
    read = msgspec.to_builtins(job_after(NEXT[:1]))
    assert read["stages"]["onnx"]["worker"] == "w"
    written = published(read | {"new": 1}, NEXT[1])
    assert "worker" not in written["stages"]["onnx"]


def test_a_default_that_is_spelled_out_gives_way_to_what_follows() -> None:
    read = msgspec.to_builtins(job_after([]))
    read["stages"]["onnx"] |= {"worker": None, "attempt": 0}
    written = published(read | {"new": 1}, NEXT[0])
    assert (written["stages"]["onnx"]["worker"], written["stages"]["onnx"]["attempt"]) == ("w", 1)
