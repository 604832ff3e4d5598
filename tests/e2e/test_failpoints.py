"""A stage that is killed at any step, and started again, completes the job once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from digits import Digits
from waiting import all_settled, eventually

from converter.common.bus import EventBusUnavailable
from converter.common.eventlog import JobLog
from converter.common.lifecycle import State
from converter.common.topology import stage_durable
from converter.contracts.facts import JobCompleted, StageCompleted
from converter.contracts.job import STAGES, JobRecord, JobStatus, Stage
from converter.devstack.stack import Stack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

BEFORE = ("state", "start", "fetch", "convert", "store", "publish", "announce", "ack")
AFTER = ("pull", *BEFORE)
FAILPOINTS = [f"before:{place}" for place in BEFORE] + [f"after:{place}" for place in AFTER]


def kills() -> Iterator[object]:
    """Each failpoint at each stage that comes by it. All stages have one runner, so the suite takes them in turn."""
    for number, failpoint in enumerate(FAILPOINTS):
        stages = STAGES[-1:] if "announce" in failpoint else STAGES  # only the last one announces the end of the job
        for stage in stages:
            in_turn = stage is stages[number % len(stages)]
            yield pytest.param(failpoint, stage, marks=() if in_turn else pytest.mark.long)


def over(state: State) -> bool:
    return isinstance(state, JobRecord) and state.announced


async def nothing_left_to_settle(stack: Stack) -> bool:
    try:
        return all([await all_settled(stack.bus, stage_durable(stage)) for stage in STAGES])
    except EventBusUnavailable:
        return False


@pytest.mark.parametrize(("failpoint", "stage"), list(kills()))
async def test_a_stage_killed_at_any_step_completes_the_job_once(
    stack: Stack, digits: Digits, failpoint: str, stage: Stage
) -> None:
    name = stage_durable(stage)
    await stack.kill(name)
    await stack.start(name, env={"FAILPOINT": failpoint})
    before = stack.pids[name]
    posted = await digits.post(f"{failpoint.replace(':', '-')}-{stage}")
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
        return stack.pids.get(name) not in (None, before)

    await eventually(died, within_s=20)
