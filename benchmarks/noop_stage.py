"""A worker of any stage that does nothing: for `pipeline_converter.py`.

    python benchmarks/noop_stage.py onnx|bie|nef [--objects]

It is the service's own worker but for its bench: an attempt is begun, watched and told of as any other, and has its
result at once. With `--objects` it also fetches its input and stores an artifact and a report, as a conversion does;
only the conversion itself, which does nothing, runs in this process rather than in the jail.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self

from converter.common import service
from converter.common.bus import Bus
from converter.common.consumer import consume, heartbeat_s
from converter.common.conversion import Conversion, ConversionTask, Progress
from converter.common.eventlog import JobLog
from converter.common.isolation import Converted, Isolation, Limits, Run
from converter.common.stage.attempt import Bench
from converter.common.stage.cache import StageCache
from converter.common.stage.entry import StageServiceSettings
from converter.common.stage.live import Live
from converter.common.stage.policy import StageConverter, StageSpec
from converter.common.stage.runner import StageRunner
from converter.common.stage.watch import Watch
from converter.common.stage.workdirs import workdirs
from converter.common.storage import open_store
from converter.common.topology import EVENTS, stage_durable
from converter.common.workers import Presence
from converter.contracts.facts import StageCompleted
from converter.contracts.job import Artifact, JobRecord, Stage, StoredObject, Toolchain, timestamp

FEEDS = {Stage.ONNX: "model", Stage.BIE: "onnx", Stage.NEF: "bie"}
NOTHING = Toolchain(name="none", version="1")
OCTETS = "application/octet-stream"
SHA256 = "0" * 64


@dataclass(frozen=True, kw_only=True)
class NoWork(Bench):
    """An attempt has its result at once, and no objects."""

    async def work(
        self, job: JobRecord, attempt: int, worker: str, live: Live, interrupted: asyncio.Event
    ) -> StageCompleted:
        """Say what an attempt says that has made an artifact and a report; its name says when it began and ended."""
        del live, interrupted
        began_ns = time.time_ns()
        prefix = f"jobs/{job.job_id}/{self.spec.stage}/{attempt}"
        at = timestamp()
        made = Artifact(
            object_key=f"{prefix}/artifact",
            size_bytes=8,
            sha256=SHA256,
            filename=f"{began_ns}-{time.time_ns()}",
            media_type=OCTETS,
            created_at=at,
        )
        report = StoredObject(object_key=f"{prefix}/report", size_bytes=2, sha256=SHA256)
        return StageCompleted(
            at=at,
            stage=self.spec.stage,
            attempt=attempt,
            worker=worker,
            artifact=made,
            report=report,
            toolchain=NOTHING,
        )


class NoJail(Isolation):
    """Does a conversion where it is asked for, which no service may: there is no telling what a model does."""

    async def __aenter__(self) -> Self:
        """Start no warden."""
        return self

    async def run(
        self,
        converter: str,
        task: ConversionTask,
        limits: Limits,
        *,
        on_progress: Progress,
        on_log_line: Callable[[str], None] | None = None,
        cancel: asyncio.Event,
    ) -> Converted:
        """Make an artifact."""
        del converter, limits, on_progress, on_log_line, cancel
        artifact = task.workdir / "artifact"
        artifact.write_bytes(b"artifact")
        conversion = Conversion(artifact=artifact, filename="artifact", media_type=OCTETS, toolchain=NOTHING, report={})
        return Converted(Run(), conversion)


async def serve(stage: Stage, bench: type[Bench], settings: StageServiceSettings, stop: asyncio.Event) -> None:
    """Be a worker, as `converter.common.stage.entry` makes one."""
    name = stage_durable(stage)
    converter = StageConverter(function="nothing")
    spec = StageSpec(stage=stage, inputs=(FEEDS[stage],), converters={"reference": converter})
    async with (
        await Bus.connect(settings.nats, name=name, on_lost=service.die) as bus,
        open_store(settings.storage) as store,
        workdirs(settings.stage.work_dir) as places,
        NoJail() as isolation,
    ):
        beat_s, job_log = await heartbeat_s(bus, EVENTS, name), JobLog(bus, name)
        at_once = settings.stage.stage_concurrency
        presence = Presence(bus, name, concurrency=at_once)
        watch = Watch(bus, job_log, stage, look_s=beat_s, draining=stop)
        worker = bench(
            spec=spec,
            bus=bus,
            watch=watch,
            store=store,
            cache=StageCache(bus, job_log, store, spec=spec, converter=converter, maker=None),
            signing_key=None,
            isolation=isolation,
            workdirs=places,
            settings=settings.stage,
        )
        runner = StageRunner(worker, job_log, presence)
        gc.collect()
        gc.freeze()
        async with watch.kept(), presence.shown(beat_s):
            await consume(bus, EVENTS, name, runner.handle, concurrency=at_once, stop=stop)


if __name__ == "__main__":
    stage = Stage(sys.argv[1])
    bench = Bench if "--objects" in sys.argv else NoWork
    del sys.argv[1:]  # a service takes no arguments
    service.run(stage_durable(stage), StageServiceSettings, partial(serve, stage, bench))
