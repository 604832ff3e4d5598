"""A job that is through: the test plays its stage, and what it made, found out and wrote is in the store."""

from __future__ import annotations

from pathlib import Path

import jobs
from msgspec.structs import replace

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.storage import open_local
from converter.contracts.facts import JobCompleted
from converter.contracts.job import Artifact, Stage

ARTIFACT = b"an optimised model"
REPORT = b'{"operators": 12}'
LOG = b"optimised 12 operators\n"


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
            media_type="application/octet-stream",
            created_at=jobs.AT,
        ),
        report=await store.put(f"{directory}/report", REPORT),
        log=await store.put(f"{directory}/log", LOG),
    )
    for fact in (jobs.started(Stage.ONNX), completed, JobCompleted(at=jobs.AT)):
        await job_log.append(job_id, lambda _, fact=fact: fact)  # type: ignore[misc]  # mypy does not infer the default
