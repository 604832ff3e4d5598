"""One active job for each user, under any race, and a lock that heals by itself."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from jobs import AT, created

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.identifiers import uuid7
from converter.common.lifecycle import IllegalTransition
from converter.common.settings import NatsSettings
from converter.common.topology import ACTIVE_JOBS, WORKERS, bucket_key
from converter.common.users import ActiveJobs, UserHasActiveJob, UserJobs, user_key
from converter.common.workers import Presence, alive
from converter.contracts.facts import JobCancelled
from converter.devstack.nats_server import NatsServer


@pytest.fixture
def active(bus: Bus, job_log: JobLog) -> ActiveJobs:
    return ActiveJobs(bus, job_log)


async def test_a_second_job_is_refused_and_told_which_is_active(active: ActiveJobs, job_log: JobLog) -> None:
    first = uuid7()
    await active.claim("c", "u", first)
    job = await job_log.append(first, lambda _: created(first))
    with pytest.raises(UserHasActiveJob) as held:
        await active.claim("c", "u", uuid7())
    assert (held.value.job_id, held.value.active) == (first, job)


async def test_the_lock_is_free_as_soon_as_its_job_has_ended(active: ActiveJobs, job_log: JobLog) -> None:
    first = uuid7()
    await active.claim("c", "u", first)
    await job_log.append(first, lambda _: created(first))
    assert await active.holder("c", "u")
    await job_log.append(first, lambda _: JobCancelled(at=AT))
    assert await active.holder("c", "u") is None
    await active.claim("c", "u", uuid7())


async def test_a_claim_without_a_job_holds_only_for_the_grace(bus: Bus, job_log: JobLog, active: ActiveJobs) -> None:
    crashed, later = uuid7(), uuid7()
    await active.claim("c", "u", crashed)
    with pytest.raises(UserHasActiveJob) as held:
        await active.claim("c", "u", later)
    assert held.value.active is None
    await ActiveJobs(bus, job_log, grace=timedelta(0)).claim("c", "u", later)
    with pytest.raises(IllegalTransition):
        await job_log.append(crashed, lambda _: created(crashed))


@pytest.mark.parametrize("junk", [b"no pointer", b"{}", b'{"type": "io.nats.jetstream.api.v1.account_info_response"}'])
async def test_a_lock_that_says_nothing_is_free(bus: Bus, active: ActiveJobs, job_log: JobLog, junk: bytes) -> None:
    await bus.store(bucket_key(ACTIVE_JOBS, user_key("c", "u")), junk)
    assert await active.holder("c", "u") is None
    job_id = uuid7()
    await active.claim("c", "u", job_id)
    await job_log.append(job_id, lambda _: created(job_id))
    with pytest.raises(UserHasActiveJob):
        await active.claim("c", "u", uuid7())


async def test_a_worker_that_says_nothing_hides_no_other(bus: Bus) -> None:
    await bus.store(bucket_key(WORKERS, "promoter.junk"), b"junk")
    async with Presence(bus, "promoter", concurrency=1).shown(1):
        assert [worker.service for worker in await alive(bus)] == ["promoter"]


async def test_a_job_that_is_worked_on_twice_is_shown_until_both_have_ended(bus: Bus) -> None:
    presence = Presence(bus, "promoter", concurrency=2)
    with presence.working_on("job"):
        with presence.working_on("job"):
            pass
        async with presence.shown(1):
            assert [worker.jobs for worker in await alive(bus)] == [("job",)]


async def test_claiming_again_for_the_same_job_is_no_conflict(active: ActiveJobs) -> None:
    job_id = uuid7()
    await active.claim("c", "u", job_id)
    await active.claim("c", "u", job_id)


async def test_of_a_hundred_claims_at_once_through_three_connections_one_wins(nats_server: NatsServer) -> None:
    async def claim(bus: Bus) -> bool:
        log = JobLog(bus, "gateway")
        job_id = uuid7()
        try:
            await ActiveJobs(bus, log).claim("c", "u", job_id)
        except UserHasActiveJob:
            return False
        await log.append(job_id, lambda _: created(job_id))
        return True

    buses = [await Bus.connect(NatsSettings(nats_url=nats_server.url), name=f"g{number}") for number in range(3)]
    won = await asyncio.gather(*(claim(buses[number % 3]) for number in range(100)))
    for bus in buses:
        await bus.close()
    assert sum(won) == 1


async def test_names_that_look_alike_are_different_users(active: ActiveJobs, bus: Bus) -> None:
    names = [("a.b", "c"), ("a", "b.c"), ("a*", "u"), ("a>", "u"), ("a b", "u"), ("a%", "u"), ("a", "b-c"), ("ä", "u")]
    jobs = UserJobs(bus)
    for client, user in names:
        job_id = uuid7()
        await active.claim(client, user, job_id)
        await jobs.add(client, user, job_id)
    for client, user in names:
        assert len(await jobs.newest_first(client, user)) == 1


async def test_the_jobs_of_a_user_are_listed_newest_first(bus: Bus) -> None:
    jobs = UserJobs(bus)
    ids = []
    for _ in range(20):
        ids.append(uuid7())
        await jobs.add("c", "u", ids[-1])
        await asyncio.sleep(0.002)  # ids of one millisecond have no order
    await jobs.add("c", "other", uuid7())
    assert await jobs.newest_first("c", "u") == ids[::-1]
