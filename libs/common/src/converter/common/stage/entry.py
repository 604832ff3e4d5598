"""What a stage's `__main__` calls: `run_stage(StageSpec(…))` is the whole service."""

from __future__ import annotations

import asyncio
from functools import partial

from converter.common import service
from converter.common.bus import Bus
from converter.common.consumer import consume, heartbeat_s
from converter.common.eventlog import JobLog
from converter.common.isolation import Isolation
from converter.common.settings import NatsSettings, ServiceSettings, StageSettings, StorageSettings
from converter.common.stage.attempt import Bench
from converter.common.stage.policy import StageSpec
from converter.common.stage.runner import StageRunner
from converter.common.stage.workdirs import workdirs
from converter.common.storage import must_work, open_store
from converter.common.topology import EVENTS, stage_durable
from converter.common.workers import Presence


class StageServiceSettings(ServiceSettings, frozen=True, kw_only=True):
    """A stage's settings."""

    nats: NatsSettings
    storage: StorageSettings
    stage: StageSettings


def run_stage(spec: StageSpec) -> None:
    """Run the stage's service until it is told to stop."""
    service.run(stage_durable(spec.stage), StageServiceSettings, partial(_main, spec))


async def _main(spec: StageSpec, settings: StageServiceSettings, stop: asyncio.Event) -> None:
    name = stage_durable(spec.stage)
    toolchain = settings.stage.toolchain
    converter = spec.converters[toolchain]
    confine = spec.confinements.get(toolchain)
    async with (
        await Bus.connect(settings.nats, name=name, on_lost=service.die) as bus,
        open_store(settings.storage) as store,
        workdirs(settings.stage.work_dir) as places,
        Isolation(
            preload=[converter.partition(":")[0]], confinement=confine(settings.stage) if confine else None
        ) as isolation,
    ):
        beat_s = await heartbeat_s(bus, EVENTS, name)
        await must_work(store)
        job_log = JobLog(bus, name)
        presence = Presence(bus, name, concurrency=settings.stage.stage_concurrency)
        bench = Bench(
            spec=spec,
            bus=bus,
            job_log=job_log,
            store=store,
            isolation=isolation,
            workdirs=places,
            settings=settings.stage,
            draining=stop,
            look_s=beat_s,
        )
        runner = StageRunner(
            spec.stage,
            bus=bus,
            job_log=job_log,
            bench=bench,
            presence=presence,
            max_attempts=settings.stage.stage_max_attempts,
        )
        async with presence.shown(beat_s):
            await consume(bus, EVENTS, name, runner.handle, concurrency=settings.stage.stage_concurrency, stop=stop)
