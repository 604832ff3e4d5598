"""A stage's worker does each job's stage once, whatever happens to it and to others."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import msgspec
import pytest
from jobs import AT
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from prometheus_client import REGISTRY
from waiting import all_settled, eventually

from converter.common import tracing
from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.lifecycle import State
from converter.common.storage import ArtifactStore
from converter.common.topology import EVENTS, PROGRESS
from converter.common.workers import Presence, alive
from converter.contracts import subjects
from converter.contracts.facts import JobCancelled, JobCompleted, JobCreated, JobFailed, StageCompleted, StageStarted
from converter.contracts.job import JobRecord, JobStatus, Stage
from converter.contracts.live import ProgressReported

from .conftest import BEAT_S, NAME, Post, StartWorker, finished, running


def attempts_measured(outcome: str) -> float:
    labels = {"stage": Stage.ONNX, "outcome": outcome}
    return REGISTRY.get_sample_value("converter_stage_attempt_seconds_count", labels) or 0


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The spans of this process."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    return exporter


async def test_a_stage_is_done_once_and_its_artifact_is_whole(
    worker: StartWorker, post: Post, job_log: JobLog, store: ArtifactStore, bus: Bus, tmp_path: Path
) -> None:
    job_id = await post()
    measured = attempts_measured("completed")
    async with worker("copying"):
        job = await finished(job_log, job_id)
        await eventually(partial(all_settled, bus, NAME))
    assert attempts_measured("completed") == measured + 1
    facts = [type(event.fact) for event in await job_log.history(job_id)]
    assert facts == [JobCreated, StageStarted, StageCompleted, JobCompleted]
    assert job.status is JobStatus.COMPLETED
    assert job.warnings == ("only copied",)
    state = job.stages[Stage.ONNX]
    assert state.artifact is not None
    assert state.report is not None
    assert state.log is not None
    await store.fetch(state.artifact, tmp_path / "artifact")
    assert (tmp_path / "artifact").read_bytes() == b"model!"
    await store.fetch(state.report, tmp_path / "report")
    report = msgspec.json.decode((tmp_path / "report").read_bytes())
    assert report["inputs"] == ["model"]
    assert report["run"]["peak_memory_bytes"] > 0
    await store.fetch(state.log, tmp_path / "log")
    assert "copying one input" in (tmp_path / "log").read_text()
    told = await bus.last(PROGRESS, subjects.progress(Stage.ONNX, job_id))
    assert told is not None
    assert msgspec.json.decode(told.data, type=ProgressReported).fraction == 1.0
    assert not list(tmp_path.glob("converter-*/tmp*")), "an attempt's files are gone with it"


@pytest.mark.parametrize(
    ("converter", "code"),
    [("refusing", "model_unsupported"), ("without_room", "stage_out_of_disk"), ("dying", "stage_crashed")],
)
async def test_a_conversion_that_fails_fails_the_job_with_its_reason(
    worker: StartWorker, post: Post, job_log: JobLog, bus: Bus, converter: str, code: str
) -> None:
    job_id = await post()
    measured = attempts_measured(code)
    async with worker(converter):
        job = await finished(job_log, job_id)
        await eventually(partial(all_settled, bus, NAME))
    assert attempts_measured(code) == measured + 1
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.stage) == (code, Stage.ONNX)
    assert job.error.hint
    assert isinstance((await job_log.history(job_id))[-1].fact, JobFailed)


async def test_a_cancelled_job_stops_its_conversion_within_two_seconds(
    worker: StartWorker, post: Post, job_log: JobLog, bus: Bus, tmp_path: Path
) -> None:
    job_id = await post()
    async with worker("endless"):
        await job_log.wait(job_id, running, timeout_s=10)
        await job_log.append(job_id, lambda _: JobCancelled(at=AT))
        await bus.emit(subjects.cancel(job_id), b"")
        began = time.monotonic()
        await eventually(partial(all_settled, bus, NAME), within_s=5)
        assert time.monotonic() - began < 2
    assert [type(event.fact) for event in await job_log.history(job_id)] == [JobCreated, StageStarted, JobCancelled]
    assert not list(tmp_path.glob("converter-*/tmp*"))


async def test_a_draining_worker_gives_its_job_to_another_without_charge(
    worker: StartWorker, post: Post, job_log: JobLog, spans: InMemorySpanExporter
) -> None:
    job_id = await post()
    measured = attempts_measured("interrupted")
    async with worker("endless") as stop:
        await job_log.wait(job_id, running, timeout_s=10)
        stop.set()
    async with worker("copying"):
        job = await finished(job_log, job_id)
    assert (job.stages[Stage.ONNX].attempt, job.stages[Stage.ONNX].charged) == (2, 1)
    assert attempts_measured("interrupted") == measured + 1
    attempts = [span for span in spans.get_finished_spans() if span.name == "onnx attempt"]
    assert [(span.attributes or {})["outcome"] for span in attempts] == ["interrupted", "completed"]
    assert [span.status.status_code for span in attempts] == [StatusCode.UNSET] * 2, "to be drained is no error"


async def test_a_job_whose_worker_died_is_taken_over_and_the_attempts_are_limited(
    worker: StartWorker, post: Post, job_log: JobLog
) -> None:
    job_id = await post()
    for attempt in (1, 2):
        await job_log.append(
            job_id,
            lambda _, attempt=attempt: StageStarted(at=AT, stage=Stage.ONNX, attempt=attempt, worker="dead"),  # type: ignore[misc]  # bound per loop
        )
    async with worker("copying", max_attempts=2):
        job = await finished(job_log, job_id)
    assert job.error is not None
    assert job.error.code == "stage_crashed"
    assert "2 attempts" in job.error.message


async def test_a_job_that_a_living_worker_holds_is_left_to_it(
    worker: StartWorker, post: Post, job_log: JobLog, bus: Bus
) -> None:
    job_id = await post()
    other = Presence(bus, NAME, concurrency=1)
    async with other.shown(BEAT_S):
        await job_log.append(job_id, lambda _: StageStarted(at=AT, stage=Stage.ONNX, attempt=1, worker=other.worker))
        async with worker("copying"):

            async def put_back() -> bool:
                info = await bus.api(f"CONSUMER.INFO.{EVENTS}.{NAME}")
                return int(info["num_redelivered"]) >= 1

            await eventually(put_back)
            assert running(await job_log.read(job_id))
            assert len(await alive(bus)) == 2


async def test_a_worker_that_was_overtaken_stops_and_stores_nothing(
    worker: StartWorker, post: Post, job_log: JobLog, store: ArtifactStore, bus: Bus, tmp_path: Path
) -> None:
    job_id = await post()
    second = Presence(bus, NAME, concurrency=1)
    async with second.shown(BEAT_S), worker("endless"):

        async def at_work() -> bool:
            return bool(list(tmp_path.glob("converter-*/tmp*")))

        await eventually(at_work)
        await job_log.append(job_id, lambda _: StageStarted(at=AT, stage=Stage.ONNX, attempt=2, worker=second.worker))

        async def stopped() -> bool:
            return not list(tmp_path.glob("converter-*/tmp*"))

        await eventually(stopped)
    assert [info async for info in store.list(f"jobs/{job_id}/onnx/")] == []
    job = await job_log.read(job_id)
    assert isinstance(job, JobRecord)
    assert job.stages[Stage.ONNX].worker == second.worker


async def test_a_store_that_is_away_costs_no_attempt(
    worker: StartWorker, post: Post, job_log: JobLog, tmp_path: Path
) -> None:
    job_id = await post()
    measured = attempts_measured("storage_unavailable")
    (tmp_path / "objects").rename(tmp_path / "away")
    async with worker("copying"):

        def given_back(state: State) -> bool:
            return isinstance(state, JobRecord) and state.stages[Stage.ONNX].attempt >= 1 and not running(state)

        await job_log.wait(job_id, given_back, timeout_s=10)
        (tmp_path / "away").rename(tmp_path / "objects")
        job = await finished(job_log, job_id)
    assert job.status is JobStatus.COMPLETED
    assert job.stages[Stage.ONNX].charged == 1
    assert attempts_measured("storage_unavailable") > measured


async def test_a_work_directory_without_room_costs_no_attempt(
    worker: StartWorker, post: Post, job_log: JobLog, tmp_path: Path
) -> None:
    job_id, measured = await post(), attempts_measured("no_room")
    async with worker("copying", max_attempts=1, full_times=2):
        job = await finished(job_log, job_id)
    assert job.status is JobStatus.COMPLETED
    assert (job.stages[Stage.ONNX].attempt, job.stages[Stage.ONNX].charged) == (3, 1)
    assert attempts_measured("no_room") == measured + 2
    assert not list(tmp_path.glob("converter-*/tmp*"))


async def test_two_workers_share_the_jobs_and_do_none_twice(worker: StartWorker, post: Post, job_log: JobLog) -> None:
    async with worker("copying"), worker("copying"):
        job_ids = [await post() for _ in range(12)]
        jobs = [await finished(job_log, job_id) for job_id in job_ids]
    assert all(job.status is JobStatus.COMPLETED for job in jobs)
    facts = [event.fact for job_id in job_ids for event in await job_log.history(job_id)]
    completions = [fact for fact in facts if isinstance(fact, StageCompleted)]
    assert len(completions) == len(job_ids)
    assert len({fact.worker for fact in completions}) == 2
