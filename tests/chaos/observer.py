"""What must hold of a system after whatever was done to it, seen from outside.

Nothing here asks a service, or the code that services share, what is true. It reads the event log as messages, the
object store and the file store as bytes, and what clients wrote down when they were answered.

    assert not await left_wrong(stack, ledger)

The invariants are those that docs/reliability.md names.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from converter.common.bus import Bus, EventBusUnavailable
from converter.common.settings import StorageSettings, load
from converter.common.storage import ArtifactStore, ObjectNotFound, StorageUnavailable, open_store
from converter.devstack.stack import Stack

from . import fold

Json = dict[str, Any]

TERMINAL = {"completed", "failed", "cancelled"}
FOLLOWS: dict[str, tuple[set[str | None], set[str | None]]] = {
    # what happened: the statuses that it may find, and those that it may leave (None: no record)
    "job.created": ({None}, {"queued"}),
    "stage.started": ({"queued", "running"}, {"running"}),
    "stage.released": ({"running"}, {"queued"}),
    "stage.completed": ({"running"}, {"queued", "completed"}),
    "stage.failed": ({"queued", "running"}, {"failed"}),
    "job.completed": ({"completed"}, {"completed"}),
    "job.failed": ({"queued", "running", "failed"}, {"failed"}),
    "job.cancelled": ({"queued", "running"}, {"cancelled"}),
    "job.deleted": ({None, *TERMINAL}, {None}),
    "promotion.requested": ({"completed"}, {"completed"}),
    "promotion.completed": ({"completed"}, {"completed"}),
    "promotion.failed": ({"completed"}, {"completed"}),
}
"""The state graph, written down a second time on purpose. Events of other kinds are a later release's; they leave
a status as they found it."""

FORGED = "Forged"
"""The header of what a test has published and what is no event: it counts nothing."""


class Ledger:
    """What clients were told, kept as they were told it, also if the client dies."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")
        self.accepted: dict[str, str] = {}
        """User by job id: every 201."""
        self.promoted: dict[str, tuple[str, str]] = {}
        """Job id and source by key in the file store: every promotion that a client was told is done."""

    def close(self) -> None:
        """No client is left."""
        self._file.close()

    def accept(self, job_id: str, user_id: str) -> None:
        """A client was answered 201."""
        self.accepted[job_id] = user_id
        self._write({"accepted": job_id, "user": user_id})

    def promote(self, key: str, job_id: str, source: str) -> None:
        """A client was answered that the file store has it."""
        self.promoted[key] = (job_id, source)
        self._write({"promoted": key, "job": job_id, "source": source})

    def _write(self, line: Json) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


class Message(NamedTuple):
    """One message of the event log."""

    sequence: int
    event_id: str
    job_id: str
    kind: str
    fact: Json
    job: Json | None


async def left_wrong(stack: Stack, ledger: Ledger, *, within_s: float = 60) -> list[str]:
    """Everything that does not hold, and what no sweep has removed, after it had time to come right."""
    give_up_at = time.monotonic() + within_s
    while True:
        found = ["a server is away"]
        with suppress(EventBusUnavailable, StorageUnavailable):  # it is still coming back
            found = [*await violations(stack, ledger), *(f"{key}: nobody's" for key in await orphans(stack))]
        if not found or time.monotonic() >= give_up_at:
            return found
        await asyncio.sleep(0.2)


async def violations(stack: Stack, ledger: Ledger) -> list[str]:
    """Everything that does not hold; each with the job that shows it."""
    log = [message async for message in _log(stack.bus)]
    by_job: dict[str, list[Message]] = defaultdict(list)
    for message in log:
        by_job[message.job_id].append(message)
    found = [*one_active_job_each(log), *_ledger(ledger, by_job)]
    for job_id, messages in by_job.items():
        folded = fold.disagreements(fold.Step(message.fact, message.job) for message in messages)
        found += [f"{job_id}: {what}" for what in (*path_in_the_graph(messages), *effects_once(messages), *folded)]
    found += [what async for what in _projection(stack.bus, list(by_job))]
    async with open_store(load(StorageSettings, stack.variables)) as store:
        found += [what async for what in _artifacts(store, by_job)]
    found += list(_promotions(stack, ledger, by_job))
    return found


async def orphans(stack: Stack) -> list[str]:
    """Objects of jobs that no job has, and uploads that nobody finishes: what a sweep should have removed."""
    named = {key async for message in _log(stack.bus) if message.job for key in _keys(message.job)}
    gone = {message.job_id async for message in _log(stack.bus) if message.job is None}
    async with open_store(load(StorageSettings, stack.variables)) as store:
        objects = [each.object_key async for each in store.list("jobs/")]
        unfinished = [upload.object_key async for upload in store.open_uploads()]
    return [key for key in objects if key not in named or key.split("/")[1] in gone] + unfinished


async def history(bus: Bus, job_id: str) -> list[Message]:
    """Every event of the job."""
    return [message async for message in _log(bus, f"converter.v1.{job_id}.>")]


async def _log(bus: Bus, subject: str = "converter.v1.>") -> AsyncIterator[Message]:
    sequence = 0
    while stored := await bus.next_after("EVENTS", subject, sequence):
        sequence = stored.sequence
        body = None if FORGED in stored.headers else _event(stored.data)
        if body is None:
            continue
        yield Message(
            sequence=stored.sequence,
            event_id=stored.headers["ce-id"],
            job_id=stored.subject.split(".")[2],
            kind=body["fact"]["type"],
            fact=body["fact"],
            job=body["job"],
        )


def _event(payload: bytes) -> Json | None:
    """What `payload` tells, if it is an event; whatever else lies there counts nothing."""
    try:
        body = json.loads(payload)
    except ValueError:
        return None
    return body if isinstance(body, dict) and body.keys() == {"fact", "job"} else None


def one_active_job_each(log: list[Message]) -> Iterator[str]:
    """At most one active job for each user, in the order in which things happened."""
    active: dict[tuple[str, str], str] = {}
    user_of: dict[str, tuple[str, str]] = {}
    for message in log:
        if message.job:
            user_of[message.job_id] = (message.job["request"]["client_id"], message.job["request"]["user_id"])
        user = user_of.get(message.job_id)
        if user is None:
            continue
        if message.job and message.job["status"] not in TERMINAL:
            holder = active.setdefault(user, message.job_id)
            if holder != message.job_id:
                yield f"{message.job_id}: active beside {holder} of the same user"
        elif active.get(user) == message.job_id:
            del active[user]


def _ledger(ledger: Ledger, by_job: dict[str, list[Message]]) -> Iterator[str]:
    """Every accepted job has come to its end, and none that was not accepted was made twice of one request."""
    for job_id in ledger.accepted:
        if job_id not in by_job:
            yield f"{job_id}: accepted, and unknown"
    now = datetime.now(UTC)
    for job_id, messages in by_job.items():
        last = messages[-1].job
        if last is None:
            continue
        if last["status"] not in TERMINAL:
            yield f"{job_id}: still {last['status']} at {last['stage']}"
        elif last["status"] != "cancelled" and not last["announced"]:
            yield f"{job_id}: its end was never announced"
        for promotion in last["promotions"]:
            overdue = datetime.fromisoformat(promotion["deadline"]) + timedelta(seconds=5)
            if promotion["status"] == "pending" and overdue < now:
                yield f"{job_id}: promotion to {promotion['target_object_key']} is pending past its deadline"


def path_in_the_graph(messages: list[Message]) -> Iterator[str]:
    """The history is a path in the state graph, counted without a gap, and once terminal a status stays."""
    status: str | None = None
    for number, message in enumerate(messages, start=1):
        before, after = FOLLOWS.get(message.kind, ({status}, {status}))
        left = message.job["status"] if message.job else None
        if status not in before or left not in after:
            yield f"{message.kind} leads from {status} to {left}"
        if status in TERMINAL and left not in {status, None}:
            yield f"{status} became {left}"
        if message.job and message.job["revision"] != number:
            yield f"event {number} has revision {message.job['revision']}"
        status = left
    if len({message.event_id for message in messages}) != len(messages):
        yield "one event is there twice"


def effects_once(messages: list[Message]) -> Iterator[str]:
    """Each stage took effect once, and what it recorded never changed afterwards."""
    completed: dict[str, str] = {}
    for message in messages:
        if message.kind == "stage.completed":
            stage = message.fact["stage"]
            if stage in completed:
                yield f"{stage} was completed twice"
            completed[stage] = message.fact["artifact"]["sha256"]
        for stage, digest in completed.items():
            if message.job and message.job["stages"][stage]["artifact"]["sha256"] != digest:
                yield f"the artifact of {stage} changed"
    if len({m.kind for m in messages} & {"job.completed", "job.failed", "job.cancelled"}) > 1:
        yield "its end was told in two ways"
    for kind in ("job.completed", "job.failed"):
        if sum(message.kind == kind for message in messages) > 1:
            yield f"{kind} was told twice"


async def _projection(bus: Bus, job_ids: list[str]) -> AsyncIterator[str]:
    """The bucket says what the log says last, byte by byte."""
    for job_id in job_ids:
        shown = await bus.last("KV_job_state", f"$KV.job_state.{job_id}")
        last = await bus.last("EVENTS", f"converter.v1.{job_id}.>")
        if shown is None or last is None or shown.data != last.data:
            yield f"{job_id}: the bucket job_state differs from the log"


async def _artifacts(store: ArtifactStore, by_job: dict[str, list[Message]]) -> AsyncIterator[str]:
    """Every object that a job names is whole."""
    for job_id, messages in by_job.items():
        job = messages[-1].job
        for stored in _objects(job) if job else ():
            digest = hashlib.sha256()
            try:
                async with store.open(stored["object_key"]) as download:
                    async for chunk in download.chunks:
                        digest.update(chunk)
            except ObjectNotFound:
                yield f"{job_id}: {stored['object_key']} is not there"
                continue
            if digest.hexdigest() != stored["sha256"]:
                yield f"{job_id}: {stored['object_key']} has other bytes than were recorded"


def _promotions(stack: Stack, ledger: Ledger, by_job: dict[str, list[Message]]) -> Iterator[str]:
    """What a client was told is in the file store is there, byte by byte; what it was told is not, is not."""
    for key, (job_id, source) in ledger.promoted.items():
        job = by_job[job_id][-1].job
        path = stack.stored_file(key)
        if job is None:
            continue
        if not path.exists():
            yield f"{job_id}: promoted to {key}, which is not there"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != job["stages"][source]["artifact"]["sha256"]:
            yield f"{job_id}: {key} has other bytes than the artifact of {source}"
    for job_id, messages in by_job.items():
        job = messages[-1].job
        tried = defaultdict(set)
        for promotion in job["promotions"] if job else ():
            tried[promotion["target_object_key"]].add(promotion["status"])
        for key, outcomes in tried.items():
            if outcomes == {"failed"} and stack.stored_file(key).exists():
                yield f"{job_id}: {key} is there although every promotion to it failed"


def _objects(job: Json) -> Iterator[Json]:
    """Everything stored that the record names."""
    request = job["request"]
    yield request["model"]
    if request["ref_images"]:
        yield request["ref_images"]
    for state in job["stages"].values():
        yield from (value for value in state.values() if isinstance(value, dict) and "object_key" in value)


def _keys(job: Json) -> set[str]:
    return {stored["object_key"] for stored in _objects(job)}
