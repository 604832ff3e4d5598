"""A worker of stage-onnx in this process, jobs for it, and waits for what it does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jobs import SHA, created

from converter.common.bus import Bus
from converter.common.consumer import consume
from converter.common.eventlog import JobLog
from converter.common.identifiers import uuid7
from converter.common.isolation import Confinement, Isolation
from converter.common.lifecycle import State
from converter.common.provenance import SigningKey
from converter.common.settings import NatsSettings, StageSettings
from converter.common.stage.attempt import Bench
from converter.common.stage.cache import Maker, StageCache
from converter.common.stage.policy import StageConverter, StageSpec
from converter.common.stage.runner import StageRunner
from converter.common.stage.watch import Watch
from converter.common.stage.workdirs import Workdirs, workdirs
from converter.common.storage import ArtifactStore, open_local
from converter.common.topology import EVENTS, stage_durable
from converter.common.workers import Presence
from converter.contracts.job import JobRecord, JobStatus, Model, Stage, Toolchain
from converter.devstack.nats_server import NatsServer

NAME = stage_durable(Stage.ONNX)
BEAT_S = 0.4


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_local(tmp_path / "objects")


class Crowded(Workdirs):
    """Places of which the first few lie on a full disk: what is fetched there goes to the kernel's full device."""

    def __init__(self, places: Workdirs, full_times: int) -> None:
        self._places, self._full_times = places, full_times

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[Path]:
        async with self._places.one() as path:
            if self._full_times:
                self._full_times -= 1
                (path / "model").symlink_to("/dev/full")
            yield path


StartWorker = Callable[..., AbstractAsyncContextManager[asyncio.Event]]


@pytest.fixture
def worker(nats_server: NatsServer, store: ArtifactStore, tmp_path: Path) -> StartWorker:
    """Starts a worker of stage-onnx with one of the converters for tests; the value is the event that stops it."""

    @contextlib.asynccontextmanager
    async def start(
        converter: str,
        *,
        max_attempts: int = 3,
        alive_in_bucket: bool = True,
        toolchain: Toolchain | None = None,
        signing_key: SigningKey | None = None,
        full_times: int = 0,
    ) -> AsyncIterator[asyncio.Event]:
        stop = asyncio.Event()
        converting = StageConverter(function=f"converters_for_tests:{converter}", options=("input_shape",))
        spec = StageSpec(stage=Stage.ONNX, inputs=("model",), converters={"reference": converting})
        maker = Maker(toolchain, SHA) if toolchain else None
        async with (
            await Bus.connect(NatsSettings(nats_url=nats_server.url), name=NAME) as bus,
            Isolation(confinement=Confinement(sources=(Path(__file__).parent,))) as isolation,
            workdirs(tmp_path) as places,
        ):
            log = JobLog(bus, NAME)
            presence = Presence(bus, NAME, concurrency=2)
            watch = Watch(bus, log, Stage.ONNX, look_s=BEAT_S, draining=stop)
            bench = Bench(
                spec=spec,
                bus=bus,
                watch=watch,
                store=store,
                cache=StageCache(bus, log, store, spec=spec, converter=converting, maker=maker),
                signing_key=signing_key,
                isolation=isolation,
                workdirs=Crowded(places, full_times),
                settings=StageSettings(stage_timeout_s=60, stage_memory_mb=1024, stage_max_attempts=max_attempts),
            )
            runner = StageRunner(bench, log, presence)
            async with watch.kept(), presence.shown(BEAT_S) if alive_in_bucket else contextlib.nullcontext():
                consuming = asyncio.create_task(consume(bus, EVENTS, NAME, runner.handle, concurrency=2, stop=stop))
                try:
                    yield stop
                finally:
                    stop.set()
                    await consuming

    return start


Post = Callable[..., Awaitable[str]]


@pytest.fixture
def post(job_log: JobLog, store: ArtifactStore) -> Post:
    """Posts a job that ends with stage-onnx; `given` replaces fields of its request."""

    async def post_job(content: bytes = b"model", filename: str = "m.onnx", **given: Any) -> str:  # noqa: ANN401 - of the field
        job_id = uuid7()
        stored = await store.put(f"jobs/{job_id}/input/model", content)
        model = Model(filename=filename, **msgspec.structs.asdict(stored))
        fact = created(job_id, last_stage=Stage.ONNX)
        fact = msgspec.structs.replace(fact, request=msgspec.structs.replace(fact.request, model=model, **given))
        await job_log.append(job_id, lambda _: fact)
        return job_id

    return post_job


def running(state: State) -> bool:
    return isinstance(state, JobRecord) and state.status is JobStatus.RUNNING


def announced(state: State) -> bool:
    return isinstance(state, JobRecord) and state.announced


async def finished(job_log: JobLog, job_id: str, *, within_s: float = 20) -> JobRecord:
    state = await job_log.wait(job_id, announced, timeout_s=within_s)
    assert isinstance(state, JobRecord)
    return state
