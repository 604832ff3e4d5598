"""The index of all jobs, as it follows the bucket that the server keeps."""

from __future__ import annotations

import jobs
import msgspec
from waiting import eventually

from converter.common.background import background
from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.identifiers import uuid7
from converter.common.lifecycle import evolve
from converter.common.topology import EVENTS, JOB_STATE, bucket_stream
from converter.contracts import subjects
from converter.contracts.facts import Event, JobCancelled, JobCreated, JobDeleted
from converter.contracts.job import JobRecord
from converter.gateway.index import BATCH, JobFilter, JobIndex

ALL = JobFilter()


def _record(created: JobCreated) -> JobRecord:
    state = evolve(None, created)
    assert isinstance(state, JobRecord)
    return state


async def follows(index: JobIndex, ids: list[str], wanted: JobFilter = ALL) -> None:
    async def same() -> bool:
        await index.refresh()
        return list(index.find(wanted)) == ids

    await eventually(same)


async def test_it_follows_what_happens_and_forgets_what_is_deleted(bus: Bus, job_log: JobLog):
    index, (a, b, c) = JobIndex(bus), sorted(uuid7() for _ in range(3))
    await follows(index, [])
    for job_id in (b, a, c):
        await job_log.append(job_id, lambda _, job_id=job_id: jobs.created(job_id))  # type: ignore[misc]  # a default for mypy
    await follows(index, [c, b, a])
    assert list(index.find(ALL, before=c)) == [b, a]
    assert list(index.find(ALL, before=a)) == []
    await job_log.append(b, lambda _: JobCancelled(at=jobs.AT))
    await follows(index, [b], JobFilter(status="cancelled"))
    await job_log.append(b, lambda _: JobDeleted(at=jobs.AT, reason="requested"))
    await follows(index, [c, a])
    assert list(index.find(ALL, before=b)) == [a], "a page goes on where it was, whatever became of its last job"
    await follows(JobIndex(bus), [c, a])


async def test_something_that_is_no_event_leaves_the_entry_as_it_was(bus: Bus, job_log: JobLog):
    index, job_id = JobIndex(bus), uuid7()
    await job_log.append(job_id, lambda _: jobs.created(job_id))
    await follows(index, [job_id])
    other = uuid7()
    record = msgspec.to_builtins(_record(jobs.created(job_id)))
    for nonsense in (b"nonsense", msgspec.json.encode({"job": record | {"stage": None}})):
        await bus.store(f"converter.v1.{job_id}.job.created", nonsense)
    await job_log.append(other, lambda _: jobs.created(other))
    await follows(index, [other, job_id])


async def test_more_jobs_than_a_batch_are_all_there(bus: Bus):
    ids = [uuid7() for _ in range(2 * BATCH + 1)]
    for job_id in ids:
        created = jobs.created(job_id)
        event = Event(fact=created, job=_record(created))
        await bus.emit(subjects.of_fact(job_id, created), msgspec.json.encode(event))
    await follows(JobIndex(bus), sorted(ids, reverse=True))


async def test_a_bucket_that_was_made_anew_is_read_anew(bus: Bus, job_log: JobLog):
    index, stream = JobIndex(bus), bucket_stream(JOB_STATE)
    kept, config = uuid7(), (await bus.api(f"STREAM.INFO.{stream}"))["config"]
    for job_id in (uuid7(), uuid7(), kept):
        await job_log.append(job_id, lambda _, job_id=job_id: jobs.created(job_id))  # type: ignore[misc]  # a default for mypy

    async def knows(*job_ids: str) -> bool:
        return set(index.find(ALL)) == set(job_ids)

    async with background(index.keep_fresh):
        await eventually(lambda: _count(index, 3))
        await bus.api(f"STREAM.DELETE.{stream}")
        after = int((await bus.api(f"STREAM.INFO.{EVENTS}"))["state"]["last_seq"])
        config["sources"] = [source | {"opt_start_seq": after} for source in config["sources"]]
        await bus.api(f"STREAM.CREATE.{stream}", config)
        await eventually(lambda: knows(kept), within_s=20)


async def _count(index: JobIndex, count: int) -> bool:
    return len(list(index.find(ALL))) == count


async def test_a_filter_finds_what_a_look_at_every_job_would(bus: Bus, job_log: JobLog):
    index, ids = JobIndex(bus), sorted(uuid7() for _ in range(12))
    for number, job_id in enumerate(ids):
        fact = jobs.created(job_id, user_id=f"u{number % 3}")
        await job_log.append(job_id, lambda _, fact=fact: fact)  # type: ignore[misc]  # a default for mypy
    for job_id in ids[::2]:
        await job_log.append(job_id, lambda _: JobCancelled(at=jobs.AT))
    await job_log.append(ids[0], lambda _: JobDeleted(at=jobs.AT, reason="requested"))
    await follows(index, ids[:0:-1])
    by_user = {user: [ids[n] for n in range(11, 0, -1) if n % 3 == user] for user in range(3)}
    for user, of_user in by_user.items():
        assert list(index.find(JobFilter(user_id=f"u{user}"))) == of_user
    await follows(index, ids[10:0:-2], JobFilter(status="cancelled"))
    await follows(index, [ids[n] for n in (10, 4)], JobFilter(status="CANCELLED", user_id="u1", client_id="client"))
    assert list(index.find(JobFilter(status="ONNX"), before=ids[5])) == [ids[3], ids[1]]
    assert list(index.find(JobFilter(user_id="nobody"))) == []
    index.forget(ids[1])
    assert list(index.find(JobFilter(user_id="u1"))) == [ids[n] for n in (10, 7, 4)]
