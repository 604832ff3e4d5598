"""No job stays active past its deadline."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from jobs import AT, created
from waiting import eventually

from converter.common.bus import Bus
from converter.common.consumer import consume
from converter.common.eventlog import JobLog
from converter.common.lifecycle import State
from converter.common.topology import DEADLINES, TIMERS
from converter.contracts.facts import JobCancelled
from converter.contracts.job import JobRecord, JobStatus
from converter.gateway.deadlines import Deadlines, schedule


async def test_an_active_job_fails_at_its_deadline_and_an_ended_one_is_left_alone(bus: Bus, job_log: JobLog) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    for job_id in ("stuck", "done"):
        await schedule(bus, job_id, soon)
        await job_log.append(job_id, lambda _, job_id=job_id: created(job_id))  # type: ignore[misc]  # bound per loop
    await schedule(bus, "never-created", soon)
    ended = await job_log.append("done", lambda _: JobCancelled(at=AT))
    stop = asyncio.Event()
    consuming = asyncio.create_task(
        consume(bus, TIMERS, DEADLINES, Deadlines(job_log).handle, concurrency=2, stop=stop)
    )

    def failed(state: State) -> bool:
        return isinstance(state, JobRecord) and state.status is JobStatus.FAILED

    job = await job_log.wait("stuck", failed, timeout_s=10)

    async def settled() -> bool:
        info = await bus.api(f"CONSUMER.INFO.{TIMERS}.{DEADLINES}")
        return info["delivered"]["consumer_seq"] >= 3 and info["num_ack_pending"] == 0

    await eventually(settled)
    stop.set()
    await consuming
    assert isinstance(job, JobRecord)
    assert job.error is not None
    assert (job.error.code, job.announced) == ("deadline_exceeded", True)
    assert await job_log.read("done") == ended
    assert await job_log.read("never-created") is None
