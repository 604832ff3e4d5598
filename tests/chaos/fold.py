"""What a job has come to, worked out from its facts alone; the record that each event carries has to say the same.

It shares no code with the services on purpose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

Json = dict[str, Any]

STAGES = ("onnx", "bie", "nef")
ACTIVE = {"queued", "running"}
MADE = {"artifact": None, "report": None, "log": None, "provenance": None, "cached": False}
OF_A_STAGE = {"attempt": 0, "charged": 0, "worker": None, **MADE}
"""What is compared of each stage, with what it is while nothing has happened there."""


class Step(NamedTuple):
    """An event: its fact, and the record beside it (none: the job is deleted)."""

    fact: Json
    job: Json | None


def disagreements(steps: Iterable[Step]) -> Iterator[str]:
    """Where a record says something else than the facts up to it."""
    state: Json | None = None
    for number, (fact, job) in enumerate(steps, start=1):
        state = after(state, fact)
        told = shown(job)
        if (state is None) != (told is None):
            yield f"event {number}, {fact['type']}: the record is {'not ' if told is None else ''}there"
        if state is None or told is None:
            continue
        # Of promotions that have ended a record keeps the latest alone.
        ended = {name for name, one in state["promotions"].items() if one["status"] != "pending"}
        folded = {**state, "promotions": _without(state["promotions"], ended - told["promotions"].keys())}
        for name, value in folded.items():
            if told[name] != value:
                yield f"event {number}, {fact['type']}: {name} is {told[name]}, and by the facts {value}"


def shown(job: Json | None) -> Json | None:
    """The same of a record."""
    if job is None:
        return None
    stages = {name: {key: of.get(key, none) for key, none in OF_A_STAGE.items()} for name, of in job["stages"].items()}
    promotions = {
        each["promotion_id"]: {key: each[key] for key in ("source", "target_object_key", "status")}
        for each in job["promotions"]
    }
    same = ("job_id", "request", "status", "stage", "announced", "error", "toolchain")
    return {**{key: job[key] for key in same}, "stages": stages, "promotions": promotions}


def after(state: Json | None, fact: Json) -> Json | None:
    """What `fact` makes of `state`; a fact of a later release leaves it as it is."""
    kind = fact["type"]
    if kind == "job.created":
        return _created(fact)
    if kind == "job.deleted" or state is None:
        return None
    happens = {
        "stage.started": _started,
        "stage.released": _released,
        "stage.completed": _completed,
        "stage.failed": _failed,
        "promotion.requested": _requested,
    }
    if kind in happens:
        return happens[kind](state, fact)
    if kind in {"promotion.completed", "promotion.failed"}:
        promotion = {**state["promotions"][fact["promotion_id"]], "status": kind.removeprefix("promotion.")}
        return {**state, "promotions": {**state["promotions"], fact["promotion_id"]: promotion}}
    if kind in {"job.failed", "job.cancelled"} and state["status"] in ACTIVE:
        ended = _at(state, state["stage"], worker=None)
        return {**ended, "status": kind.removeprefix("job."), "error": fact.get("error"), "announced": True}
    return {**state, "announced": True} if kind in {"job.completed", "job.failed"} else state


def _created(fact: Json) -> Json:
    stages = STAGES[: STAGES.index(fact["request"]["options"]["last_stage"]) + 1]
    return {
        "job_id": fact["job_id"],
        "request": fact["request"],
        "status": "queued",
        "stage": stages[0],
        "announced": False,
        "error": None,
        "toolchain": None,
        "stages": dict.fromkeys(stages, OF_A_STAGE),
        "promotions": {},
    }


def _at(state: Json, stage: str, **changed: object) -> Json:
    return {**state, "stages": {**state["stages"], stage: {**state["stages"][stage], **changed}}}


def _started(state: Json, fact: Json) -> Json:
    charged = state["stages"][fact["stage"]]["charged"] + 1
    taken = _at(state, fact["stage"], attempt=fact["attempt"], worker=fact["worker"], charged=charged)
    return {**taken, "status": "running"}


def _released(state: Json, fact: Json) -> Json:
    charged = state["stages"][fact["stage"]]["charged"] - 1
    return {**_at(state, fact["stage"], worker=None, charged=charged), "status": "queued"}


def _completed(state: Json, fact: Json) -> Json:
    stage, stages = fact["stage"], list(state["stages"])
    made = {key: fact.get(key, none) for key, none in MADE.items()}
    done = _at(state, stage, worker=None, **made) | {"toolchain": fact["toolchain"]}
    later = stages[stages.index(stage) + 1 :]
    return {**done, "status": "queued" if later else "completed", "stage": later[0] if later else None}


def _failed(state: Json, fact: Json) -> Json:
    failed = _at(state, fact["stage"], worker=None, log=fact.get("log"))
    return {**failed, "status": "failed", "error": fact["error"]}


def _requested(state: Json, fact: Json) -> Json:
    promotion = {key: fact[key] for key in ("source", "target_object_key")} | {"status": "pending"}
    return {**state, "promotions": {**state["promotions"], fact["promotion_id"]: promotion}}


def _without(promotions: Json, names: set[str]) -> Json:
    return {name: each for name, each in promotions.items() if name not in names}
