"""What a stage's `__main__` calls: `run_stage(StageSpec(…))` is the whole service."""

from __future__ import annotations

import asyncio
import gc
from functools import partial
from pathlib import Path

import structlog

from converter.common import service
from converter.common.bus import Bus
from converter.common.consumer import consume, heartbeat_s
from converter.common.eventlog import JobLog
from converter.common.isolation import Isolation
from converter.common.monitoring import monitored
from converter.common.provenance import KeyUnreadable, SigningKey
from converter.common.settings import (
    MonitoringSettings,
    NatsSettings,
    Problem,
    ServiceSettings,
    SettingsError,
    StageSettings,
    StorageSettings,
)
from converter.common.stage.attempt import Bench
from converter.common.stage.cache import StageCache, this_maker
from converter.common.stage.policy import StageSpec
from converter.common.stage.runner import StageRunner
from converter.common.stage.watch import Watch
from converter.common.stage.workdirs import workdirs
from converter.common.storage import must_work, open_store
from converter.common.topology import EVENTS, stage_durable
from converter.common.workers import Presence

log = structlog.get_logger()


class StageServiceSettings(ServiceSettings, frozen=True, kw_only=True):
    """A stage's settings."""

    nats: NatsSettings
    storage: StorageSettings
    stage: StageSettings
    monitoring: MonitoringSettings


def run_stage(spec: StageSpec) -> None:
    """Run the stage's service until it is told to stop."""
    service.run(stage_durable(spec.stage), StageServiceSettings, partial(_main, spec))


async def _main(spec: StageSpec, settings: StageServiceSettings, stop: asyncio.Event) -> None:
    name = stage_durable(spec.stage)
    toolchain = settings.stage.toolchain
    converter = spec.converters[toolchain]
    signing_key = _signing_key(settings.stage.provenance_key_file)
    async with (
        await Bus.connect(settings.nats, name=name, on_lost=service.die) as bus,
        open_store(settings.storage) as store,
        workdirs(settings.stage.work_dir) as places,
        Isolation(
            preload=[converter.function.partition(":")[0]], confinement=converter.confinement(settings.stage)
        ) as isolation,
    ):
        beat_s = await heartbeat_s(bus, EVENTS, name)
        await must_work(store)
        job_log = JobLog(bus, name)
        presence = Presence(bus, name, concurrency=settings.stage.stage_concurrency)
        maker = await this_maker(converter.identity(settings.stage))
        watch = Watch(bus, job_log, spec.stage, look_s=beat_s, draining=stop)
        bench = Bench(
            spec=spec,
            bus=bus,
            watch=watch,
            store=store,
            cache=StageCache(bus, job_log, store, spec=spec, converter=converter, maker=maker),
            signing_key=signing_key,
            isolation=isolation,
            workdirs=places,
            settings=settings.stage,
        )
        runner = StageRunner(bench, job_log, presence)
        gc.collect()
        gc.freeze()  # what has been made by now stays: no collection need look at it again
        async with watch.kept(), presence.shown(beat_s), monitored(settings.monitoring, bus):
            await consume(bus, EVENTS, name, runner.handle, concurrency=settings.stage.stage_concurrency, stop=stop)


def _signing_key(path: Path | None) -> SigningKey | None:
    """The key in the file `path`, and its name in the log; without a file a warning, and artifacts without statements.

    Raises:
        SettingsError: the file holds no such key.
    """
    if path is None:
        log.warning("provenance.off", variable="PROVENANCE_KEY_FILE", effect="artifacts carry no signed statement")
        return None
    try:
        key = SigningKey.read(path)
    except KeyUnreadable as error:
        allowed = "a PEM file with an unencrypted Ed25519 private key (PKCS #8)"
        raise SettingsError([Problem("PROVENANCE_KEY_FILE", str(error), allowed)]) from error
    log.info("provenance.signing", keyid=key.public.keyid)
    return key
