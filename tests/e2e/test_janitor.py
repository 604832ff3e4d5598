"""A janitor that hardly rests takes what crashes leave, and nothing that a job needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from digits import Digits
from waiting import eventually

from converter.common.eventlog import JobLog
from converter.common.lifecycle import State
from converter.common.storage import ArtifactStore, open_s3
from converter.common.topology import stage_durable
from converter.contracts.job import STAGES, JobRecord, JobStatus, StoredObject
from converter.devstack.stack import Stack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

SETTINGS = {"STAGE_ACK_WAIT_S": "1.5", "CLAIM_GRACE_S": "2", "JANITOR_INTERVAL_S": "0.02", "UPLOAD_LIMIT_HOURS": "0.02"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with Stack(tmp_path_factory.mktemp("stack"), settings=SETTINGS) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(stack: Stack) -> AsyncIterator[ArtifactStore]:
    found = stack.variables
    keys = {"access_key": found["MINIO_ACCESS_KEY"], "secret_key": found["MINIO_SECRET_KEY"]}
    async with open_s3(found["MINIO_ENDPOINT_URL"], found["MINIO_BUCKET"], **keys) as opened:
        yield opened


def over(state: State) -> bool:
    return isinstance(state, JobRecord) and state.announced


def named(job: JobRecord) -> Iterator[StoredObject]:
    """Every object that the job's record names."""
    request, stages = job.request, job.stages.values()
    for stored in (
        request.model,
        request.ref_images,
        *(it for at in stages for it in (at.artifact, at.report, at.log)),
    ):
        if stored is not None:
            yield stored


async def test_jobs_whose_workers_die_keep_what_counts_and_lose_what_does_not(
    stack: Stack, store: ArtifactStore, digits: Digits, tmp_path: Path
) -> None:
    """Each stage's first worker dies when it has stored its artifact and nobody knows of it."""
    names = [stage_durable(stage) for stage in STAGES]
    for name in names:
        await stack.kill(name)
    posted = [await digits.post(f"user-{number}") for number in range(3)]
    await asyncio.gather(*(stack.start(name, env={"FAILPOINT": "after:store"}) for name in names))
    job_log = JobLog(stack.bus, "test")
    jobs = [await job_log.wait(job.job_id, over, timeout_s=120) for job in posted]

    for job in jobs:
        assert isinstance(job, JobRecord)
        assert job.status is JobStatus.COMPLETED, job.error
        for number, stored in enumerate(named(job)):
            await store.fetch(stored, tmp_path / str(number))
    attempts = [[state.attempt for state in job.stages.values()] for job in jobs if isinstance(job, JobRecord)]
    assert any(attempt > 1 for of_job in attempts for attempt in of_job)

    async def only_what_counts() -> bool:
        kept = {
            f"{name}/{state.attempt}"
            for job in jobs
            if isinstance(job, JobRecord)
            for name, state in job.stages.items()
        }
        found = {info.object_key async for info in store.list("jobs/")}
        lost = {key for key in found if "/input/" not in key and "/".join(key.split("/")[2:4]) not in kept}
        return not lost

    await eventually(only_what_counts, within_s=30)
    for job in jobs:
        assert isinstance(job, JobRecord)
        for number, stored in enumerate(named(job)):
            await store.fetch(stored, tmp_path / str(number))
