"""What is published of the events says what they are, and what former releases sent still holds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from jsonschema_rs import ValidationError
from published import as_published, validator
from recorded import histories, live

from converter.common.lifecycle import Deleted, State, evolve
from converter.contracts import subjects
from converter.contracts.facts import Event
from converter.contracts.messages import FACTS

HISTORIES = dict(histories())
BY_TYPE = {message["payload"]["fact"]["type"]: message for messages in HISTORIES.values() for message in messages}


def test_every_type_of_event_is_recorded() -> None:
    assert set(BY_TYPE) == set(FACTS)


@pytest.mark.parametrize("name", HISTORIES)
def test_what_a_former_release_sent_is_understood_and_folds(name: str) -> None:
    state: State = None
    for message in HISTORIES[name]:
        event = msgspec.convert(message["payload"], Event)
        state = evolve(state, event.fact)
        assert state == (event.job or Deleted())
        assert message["subject"] == subjects.of_fact(message["headers"]["ce-subject"], event.fact)
        assert message["headers"]["ce-type"] == subjects.event_type(event.fact)


@pytest.mark.parametrize("name", HISTORIES)
def test_what_a_former_release_sent_is_what_the_schemas_say(name: str) -> None:
    for message in HISTORIES[name]:
        as_published("headers").validate(message["headers"])
        as_published(message["payload"]["fact"]["type"]).validate(message["payload"])


def test_what_was_told_while_stages_ran_is_what_the_schemas_say() -> None:
    for schema, kind in (("progress", "progress"), ("log", "logs")):
        for message in live(kind):
            as_published(schema).validate(message["payload"])


def test_the_schemas_describe_every_field_of_the_newest_recording() -> None:
    for kind, message in BY_TYPE.items():
        validator(kind).validate(message["payload"])


@pytest.mark.parametrize("kind", sorted(FACTS))
def test_a_field_that_is_not_described_is_left_alone(kind: str) -> None:
    payload = copy.deepcopy(BY_TYPE[kind]["payload"])
    for part in (payload, payload["fact"], payload["job"] or {}, (payload["job"] or {"request": {}})["request"]):
        part["of_a_newer_release"] = {"anything": 1}
    as_published(kind).validate(payload)
    msgspec.convert(payload, Event)


def _set(*path: str | int, to: object) -> Callable[[dict[str, Any]], None]:
    def change(payload: dict[str, Any]) -> None:
        *parents, last = path
        part: Any = payload
        for parent in parents:
            part = part[parent]
        part[last] = to

    return change


BROKEN = {
    "a status that there is not": ("stage.started", _set("job", "status", to="started")),
    "a time of another zone": ("stage.started", _set("fact", "at", to="2026-01-01T00:00:00.000+01:00")),
    "a day that there is not": ("stage.started", _set("job", "created_at", to="2026-02-30T00:00:00.000Z")),
    "no first revision": ("stage.started", _set("job", "revision", to=0)),
    "an attempt in words": ("stage.started", _set("fact", "attempt", to="first")),
    "a stage that there is not": ("stage.started", _set("job", "stages", "tflite", to={})),
    "a job's id that is none": ("job.created", _set("job", "job_id", to="42")),
    "a digest that is too short": ("stage.completed", _set("fact", "artifact", "sha256", to="abc")),
    "a size below nothing": ("stage.completed", _set("fact", "artifact", "size_bytes", to=-1)),
    "a completion without its artifact": ("stage.completed", lambda payload: payload["fact"].pop("artifact")),
    "an event without its job": ("job.cancelled", _set("job", to=None)),
    "a deleted job that is there": ("job.deleted", _set("job", to=BY_TYPE["job.created"]["payload"]["job"])),
    "another event's fact": ("job.cancelled", _set("fact", "type", to="job.completed")),
    "a fault that there is not": ("job.failed", _set("fact", "error", "fault", to="nobody")),
    "a promotion in another state": ("promotion.failed", _set("job", "promotions", 0, "status", to="lost")),
}


@pytest.mark.parametrize("what", BROKEN)
def test_the_schemas_refuse(what: str) -> None:
    kind, breaks = BROKEN[what]
    payload = copy.deepcopy(BY_TYPE[kind]["payload"])
    breaks(payload)
    with pytest.raises(ValidationError):
        as_published(kind).validate(payload)


@pytest.mark.parametrize("header", ["ce-id", "ce-type", "ce-time", "ce-subject", "ce-specversion", "ce-source"])
def test_the_schema_of_the_headers_promises(header: str) -> None:
    headers = BY_TYPE["job.created"]["headers"]
    for broken in ({name: value for name, value in headers.items() if name != header}, headers | {header: ""}):
        with pytest.raises(ValidationError):
            as_published("headers").validate(broken)
