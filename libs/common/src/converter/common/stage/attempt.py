"""One attempt at a stage: fetch the inputs, convert in a subprocess, store what came of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from converter.common.background import background
from converter.common.bus import Bus, BusRefused, EventBusUnavailable
from converter.common.conversion import ConversionTask
from converter.common.eventlog import JobLog
from converter.common.failpoint import failpoint
from converter.common.isolation import Cancelled, Converted, Isolation, Limits, failure
from converter.common.settings import StageSettings
from converter.common.stage.live import Live
from converter.common.stage.policy import StageSpec, holds
from converter.common.stage.workdirs import Workdirs
from converter.common.storage import ArtifactCorrupt, ArtifactStore
from converter.contracts import subjects
from converter.contracts.facts import StageCompleted, StageFailed
from converter.contracts.failures import job_error
from converter.contracts.job import Artifact, JobError, JobRecord, StoredObject, timestamp

log = structlog.get_logger()

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


class Interrupted(Exception):
    """The attempt was stopped: the worker drains, or the attempt no longer holds its stage."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What every attempt of a worker uses."""

    spec: StageSpec
    bus: Bus
    """For live messages, and the hint that a job is cancelled."""
    job_log: JobLog
    """Tells whether an attempt still holds its stage."""
    store: ArtifactStore
    isolation: Isolation
    workdirs: Workdirs
    settings: StageSettings
    draining: asyncio.Event
    """Set when the worker shall stop."""
    look_s: float
    """How often a running attempt looks whether it still holds its stage."""

    async def attempt(self, job: JobRecord, attempt: int, worker: str) -> StageCompleted | StageFailed:
        """Convert, and store the artifact, the report and the log under the attempt's own key.

        Raises:
            Interrupted: nothing came of it.
            StorageUnavailable: inputs or artifacts could not be moved.
        """
        prefix = f"jobs/{job.job_id}/{self.spec.stage}/{attempt}"
        live = Live(self.bus, self.spec.stage, job.job_id, attempt)
        async with (
            live.told(),
            self._interrupt(job.job_id, attempt, worker) as interrupted,
            self.workdirs.one() as workdir,
        ):
            live.progress(0.0, "fetching the inputs")
            failpoint("before", "fetch")
            try:
                inputs = await self._fetch(job, workdir)
            except ArtifactCorrupt as corrupt:
                return self._failed(attempt, job_error("artifact_corrupt", str(corrupt), stage=self.spec.stage))
            failpoint("after", "fetch")
            task = ConversionTask(
                workdir=workdir,
                inputs=inputs,
                filename=job.request.model.filename,
                platform=job.request.platform,
                model_id=job.request.model_id,
                version=job.request.version,
                options=job.request.options,
                made_by=job.toolchain,
            )
            failpoint("before", "convert")
            outcome = await self.isolation.run(
                self.spec.converters[self.settings.toolchain],
                task,
                Limits(timeout_s=self.settings.stage_timeout_s, memory_mb=self.settings.stage_memory_mb),
                on_progress=live.progress,
                on_log_line=live.line,
                cancel=interrupted,
            )
            failpoint("after", "convert")
            if isinstance(outcome, Cancelled):
                raise Interrupted
            failpoint("before", "store")
            stored_log = await self._store_log(prefix, workdir)
            if not isinstance(outcome, Converted):
                return self._failed(attempt, failure(outcome, self.spec.stage), stored_log)
            live.progress(1.0, "storing the artifact")
            completed = await self._completed(outcome, attempt, worker, prefix, stored_log)
            failpoint("after", "store")
            return completed

    async def _fetch(self, job: JobRecord, workdir: Path) -> dict[str, Path]:
        inputs: dict[str, Path] = {}
        for role, stored in self.spec.objects(job).items():
            inputs[role] = workdir / f"{role}{Path(stored.object_key).suffix}"
            await self.store.fetch(stored, inputs[role])
        return inputs

    async def _completed(
        self, outcome: Converted, attempt: int, worker: str, prefix: str, stored_log: StoredObject | None
    ) -> StageCompleted:
        made, run = outcome.conversion, outcome.run
        artifact = await self.store.put(f"{prefix}/artifact", made.artifact, media_type=made.media_type)
        facts = {"warnings": made.warnings, "run": run}
        report = msgspec.json.encode({**made.report, **facts}, order="sorted")
        return StageCompleted(
            at=timestamp(),
            stage=self.spec.stage,
            attempt=attempt,
            worker=worker,
            artifact=Artifact(
                object_key=artifact.object_key,
                size_bytes=artifact.size_bytes,
                sha256=artifact.sha256,
                filename=made.filename,
                media_type=made.media_type,
                created_at=timestamp(),
            ),
            report=await self.store.put(f"{prefix}/report", report, media_type=JSON),
            log=stored_log,
            toolchain=made.toolchain,
            warnings=made.warnings,
        )

    async def _store_log(self, prefix: str, workdir: Path) -> StoredObject | None:
        path = workdir / "stage.log"
        if not path.exists():
            return None
        return await self.store.put(f"{prefix}/log", path, media_type=TEXT)

    def _failed(self, attempt: int, error: JobError, stored_log: StoredObject | None = None) -> StageFailed:
        return StageFailed(at=timestamp(), stage=self.spec.stage, attempt=attempt, error=error, log=stored_log)

    @contextlib.asynccontextmanager
    async def _interrupt(self, job_id: str, attempt: int, worker: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set when the worker drains or the attempt no longer holds its stage."""
        interrupted = asyncio.Event()

        async def look() -> None:
            with contextlib.suppress(EventBusUnavailable, BusRefused):
                if not holds(await self.job_log.read(job_id), self.spec.stage, attempt, worker):
                    interrupted.set()

        async def heard(_subject: str, _payload: bytes) -> None:
            await look()

        async def keep_looking() -> None:
            while True:
                await asyncio.sleep(self.look_s)
                await look()

        async def drain() -> None:
            await self.draining.wait()
            interrupted.set()

        async with self.bus.hear(subjects.cancel(job_id), heard), background(keep_looking, drain):
            yield interrupted
