"""One attempt at a stage: fetch the inputs, convert in a subprocess, store what came of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog
from msgspec.structs import replace

from converter.common.bus import Bus
from converter.common.conversion import ConversionTask
from converter.common.failpoint import failpoint
from converter.common.isolation import Cancelled, Converted, Isolation, Limits, Outcome, failure
from converter.common.provenance import MEDIA_TYPE, SUFFIX, SigningKey
from converter.common.provenance.statement import bundle, invocation_id, statement
from converter.common.settings import StageSettings
from converter.common.stage.cache import TEXT, Reused, StageCache
from converter.common.stage.live import Live
from converter.common.stage.policy import StageConverter, StageSpec
from converter.common.stage.watch import Watch
from converter.common.stage.workdirs import Workdirs
from converter.common.storage import ArtifactCorrupt, ArtifactStore
from converter.contracts.facts import StageCompleted, StageFailed
from converter.contracts.failures import job_error
from converter.contracts.job import Artifact, JobError, JobRecord, StoredObject, timestamp

log = structlog.get_logger()

JSON = "application/json"


class Interrupted(Exception):
    """The attempt was stopped: the worker drains, or the attempt no longer holds its stage."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What every attempt of a worker uses."""

    spec: StageSpec
    bus: Bus
    """For live messages, and to learn which workers live."""
    watch: Watch
    store: ArtifactStore
    cache: StageCache
    signing_key: SigningKey | None
    """Signs how an artifact was made; without one nothing is stated."""
    isolation: Isolation
    workdirs: Workdirs
    settings: StageSettings

    @property
    def converter(self) -> StageConverter:
        """How the stage is done here."""
        return self.spec.converters[self.settings.toolchain]

    async def attempt(self, job: JobRecord, attempt: int, worker: str) -> StageCompleted | StageFailed:
        """Convert, and store the artifact and, right beside it, whatever else counts, under the attempt's own key.

        What an equal job has made is copied instead.

        Raises:
            Interrupted: nothing came of it.
            StorageUnavailable: inputs or artifacts could not be moved.
            OSError: the work directory does not take what an attempt begins with.
        """
        async with (
            Live(self.bus, self.spec.stage, job.job_id, attempt) as live,
            self.watch.over(job.job_id, attempt, worker) as interrupted,
        ):
            return await self.work(job, attempt, worker, live, interrupted)

    async def work(
        self, job: JobRecord, attempt: int, worker: str, live: Live, interrupted: asyncio.Event
    ) -> StageCompleted | StageFailed:
        """What an attempt does while it is told of and watched."""
        prefix = f"jobs/{job.job_id}/{self.spec.stage}/{attempt}"
        async with self.workdirs.one() as workdir:
            if reused := await self._reused(job, attempt, worker, prefix, live):
                return reused
            live.progress(0.0, "fetching the inputs")
            failpoint("before", "fetch")
            try:
                inputs = await self._fetch(job, workdir)
            except ArtifactCorrupt as corrupt:
                return self._failed(attempt, job_error("artifact_corrupt", str(corrupt), stage=self.spec.stage))
            failpoint("after", "fetch")
            outcome = await self._converted(job, inputs, workdir, live, interrupted)
            if isinstance(outcome, Cancelled):
                raise Interrupted
            failpoint("before", "store")
            stored_log = await self._store_log(prefix, workdir)
            if not isinstance(outcome, Converted):
                return self._failed(attempt, failure(outcome, self.spec.stage), stored_log)
            live.progress(1.0, "storing the artifact")
            completed = await self._completed(outcome, attempt, worker, prefix, stored_log)
            completed = await self._stated(job, completed, prefix)
            failpoint("after", "store")
            return completed

    async def _reused(
        self, job: JobRecord, attempt: int, worker: str, prefix: str, live: Live
    ) -> StageCompleted | None:
        """What an equal job has made, as this attempt's own."""
        failpoint("before", "reuse")
        prefix += "/reused"  # apart: a copy that breaks off is no part of what the attempt then makes by itself
        hit = await self.cache.reuse(job, attempt, worker, prefix)
        if hit is None:
            return None
        completed, reused = hit
        live.line(f"nothing is converted: job {reused.job_id} had made the same")
        failpoint("after", "reuse")
        return await self._stated(job, completed, prefix, reused)

    async def _fetch(self, job: JobRecord, workdir: Path) -> dict[str, Path]:
        inputs: dict[str, Path] = {}
        for role, stored in self.spec.objects(job).items():
            inputs[role] = workdir / f"{role}{Path(stored.object_key).suffix}"
            await self.store.fetch(stored, inputs[role])
        return inputs

    async def _converted(
        self, job: JobRecord, inputs: dict[str, Path], workdir: Path, live: Live, interrupted: asyncio.Event
    ) -> Outcome:
        """How the converter's run ended."""
        task = ConversionTask(
            workdir=workdir,
            inputs=inputs,
            filename=job.request.model.filename,
            platform=job.request.platform,
            model_id=job.request.model_id,
            version=job.request.version,
            options=self.converter.given(job.request.options),
            made_by=job.toolchain,
        )
        failpoint("before", "convert")
        outcome = await self.isolation.run(
            self.converter.function,
            task,
            Limits(timeout_s=self.settings.stage_timeout_s, memory_mb=self.settings.stage_memory_mb),
            on_progress=live.progress,
            on_log_line=live.line,
            cancel=interrupted,
        )
        failpoint("after", "convert")
        return outcome

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

    async def _stated(
        self, job: JobRecord, completed: StageCompleted, prefix: str, reused: Reused | None = None
    ) -> StageCompleted:
        """`completed` with its signed statement, where there is a key to sign it with."""
        if self.signing_key is None:
            return completed
        given = self.converter.given(job.request.options)
        stated = statement(
            job.job_id,
            job.request,
            completed,
            parameters={name: getattr(given, name) for name in (*self.converter.options, "quantization")},
            inputs=self.spec.objects(job),
            started_at=job.stages[self.spec.stage].started_at or completed.at,
            reused_from=invocation_id(reused.job_id, reused.fact) if reused else None,
        )
        signed = bundle(stated, self.signing_key)
        stored = await self.store.put(f"{prefix}/provenance", signed, media_type=MEDIA_TYPE)
        return replace(
            completed,
            provenance=Artifact(
                object_key=stored.object_key,
                size_bytes=stored.size_bytes,
                sha256=stored.sha256,
                filename=completed.artifact.filename + SUFFIX,
                media_type=MEDIA_TYPE,
                created_at=completed.at,
            ),
        )

    async def _store_log(self, prefix: str, workdir: Path) -> StoredObject | None:
        path = workdir / "stage.log"
        if not path.exists():
            return None
        return await self.store.put(f"{prefix}/log", path, media_type=TEXT)

    def _failed(self, attempt: int, error: JobError, stored_log: StoredObject | None = None) -> StageFailed:
        return StageFailed(at=timestamp(), stage=self.spec.stage, attempt=attempt, error=error, log=stored_log)
