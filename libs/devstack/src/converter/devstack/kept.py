"""What the services keep of a job behind their API: the stages' reports and logs, objects of the artifact store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from converter.common.eventlog import JobLog
from converter.common.storage import ArtifactStore, open_s3
from converter.contracts.job import JobRecord, Stage, StageState
from converter.devstack.stack import Stack

Reports = dict[str, dict[str, Any]]
"""By stage, its conversion report."""


async def reports(stack: Stack, job_id: str) -> Reports:
    """The report of every stage that has made one."""
    states = await _states(stack, job_id)
    async with _store(stack) as store:
        return {
            stage: msgspec.json.decode(await _read(store, state.report.object_key))
            for stage, state in states.items()
            if state.report
        }


async def stage_log(stack: Stack, job_id: str, stage: str) -> str:
    """What the toolchain wrote in the stage's last attempt; empty where there was none."""
    state = (await _states(stack, job_id)).get(Stage(stage))
    if state is None or state.log is None:
        return ""
    async with _store(stack) as store:
        return (await _read(store, state.log.object_key)).decode(errors="replace")


async def _states(stack: Stack, job_id: str) -> dict[Stage, StageState]:
    record = await JobLog(stack.bus, "devstack").read(job_id)
    return record.stages if isinstance(record, JobRecord) else {}


@asynccontextmanager
async def _store(stack: Stack) -> AsyncIterator[ArtifactStore]:
    variables = stack.variables
    async with open_s3(
        variables["MINIO_ENDPOINT_URL"],
        variables["MINIO_BUCKET"],
        access_key=variables["MINIO_ACCESS_KEY"],
        secret_key=variables["MINIO_SECRET_KEY"],
    ) as store:
        yield store


async def _read(store: ArtifactStore, object_key: str) -> bytes:
    async with store.open(object_key) as found:
        return b"".join([chunk async for chunk in found.chunks])
