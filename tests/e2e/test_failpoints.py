"""A stage that is killed at any step, and started again, completes the job once."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from digits import Digits
from waiting import eventually

from converter.common.bus import EventBusUnavailable
from converter.common.eventlog import JobLog
from converter.common.lifecycle import State
from converter.common.topology import EVENTS, stage_durable
from converter.contracts.facts import JobCompleted, StageCompleted
from converter.contracts.job import STAGES, JobRecord, JobStatus
from converter.devstack.stack import Stack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

BEFORE = ("state", "start", "fetch", "convert", "store", "publish", "announce", "ack")
AFTER = ("pull", *BEFORE)
FAILPOINTS = [f"before:{place}" for place in BEFORE] + [f"after:{place}" for place in AFTER]


def over(state: State) -> bool:
    return isinstance(state, JobRecord) and state.announced


async def nothing_left_to_settle(stack: Stack) -> bool:
    for stage in STAGES:
        try:
            info = await stack.bus.api(f"CONSUMER.INFO.{EVENTS}.{stage_durable(stage)}")
        except EventBusUnavailable:
            return False
        if info["num_ack_pending"] or info["num_pending"]:
            return False
    return True


@pytest.mark.parametrize("failpoint", FAILPOINTS)
async def test_a_stage_killed_at_any_step_completes_the_job_once(stack: Stack, digits: Digits, failpoint: str) -> None:
    names = [stage_durable(stage) for stage in STAGES]
    for name in names:
        await stack.kill(name)
    await asyncio.gather(*(stack.start(name, env={"FAILPOINT": failpoint}) for name in names))
    before = stack.pids
    posted = await digits.post(failpoint.replace(":", "-"))
    job_log = JobLog(stack.bus, "test")
    job = await job_log.wait(posted.job_id, over, timeout_s=60)
    await eventually(lambda: nothing_left_to_settle(stack), within_s=30)

    assert isinstance(job, JobRecord)
    assert job.status is JobStatus.COMPLETED, job.error
    history = await job_log.history(posted.job_id)
    completions = Counter(event.fact.stage for event in history if isinstance(event.fact, StageCompleted))
    assert completions == dict.fromkeys(STAGES, 1)
    assert sum(isinstance(event.fact, JobCompleted) for event in history) == 1
    revisions = [event.job.revision for event in history if event.job]
    assert revisions == list(range(1, len(history) + 1))

    async def died() -> bool:
        killed = {name for name in names if stack.pids.get(name) not in (None, before[name])}
        # Only the last stage announces the end of the job.
        return killed == ({names[-1]} if "announce" in failpoint else set(names))

    await eventually(died, within_s=20)
