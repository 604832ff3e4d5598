"""A job that is through: the test plays its stage and the promoter, and what was made and written is in the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import jobs
import msgspec
import reports
from msgspec.structs import replace

from converter.common.background import background
from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.lifecycle import State
from converter.common.storage import open_local
from converter.contracts.facts import JobCompleted, PromotionCompleted
from converter.contracts.job import Artifact, JobRecord, Promotion, Stage, timestamp

ARTIFACT = b"an optimised model"
REPORT = msgspec.json.encode(reports.ONNX)
LOG = b"optimised 12 operators\n"
WAIT_S = 120.0
"""Longer than a test may last."""


async def finish(job_id: str, bus: Bus, storage_dir: Path) -> None:
    """Take a queued job with the target `onnx` to its end."""
    store, job_log, directory = open_local(storage_dir), JobLog(bus, "test"), f"jobs/{job_id}/onnx/1"
    made = await store.put(f"{directory}/artifact", ARTIFACT)
    completed = replace(
        jobs.completed(Stage.ONNX),
        artifact=Artifact(
            object_key=made.object_key,
            size_bytes=made.size_bytes,
            sha256=made.sha256,
            filename="m.opt.onnx",
            media_type="application/onnx",
            created_at=jobs.AT,
        ),
        report=await store.put(f"{directory}/report", REPORT),
        log=await store.put(f"{directory}/log", LOG),
    )
    for fact in (jobs.started(Stage.ONNX), completed, JobCompleted(at=jobs.AT)):
        await job_log.append(job_id, lambda _, fact=fact: fact)  # type: ignore[misc]  # mypy does not infer the default


@asynccontextmanager
async def promoting(job_id: str, bus: Bus) -> AsyncIterator[None]:
    """Every promotion of the job that is asked for meanwhile succeeds."""
    job_log = JobLog(bus, "test")

    async def promote() -> None:
        while True:
            state = await job_log.wait(job_id, lambda state: bool(_pending(state)), WAIT_S)
            for promotion in _pending(state):
                fact = PromotionCompleted(at=timestamp(), promotion_id=promotion.promotion_id)
                await job_log.append(job_id, lambda _, fact=fact: fact)  # type: ignore[misc]  # as above

    async with background(promote):
        yield


def _pending(state: State) -> list[Promotion]:
    promotions = state.promotions if isinstance(state, JobRecord) else ()
    return [promotion for promotion in promotions if promotion.status == "pending"]
