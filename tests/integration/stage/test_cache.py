"""What a client had converted before is copied; nobody else's ever is, and nothing is kept for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from jobs import AT, SHA
from keys import key_pair

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.provenance import SigningKey, verify_artifact
from converter.common.storage import ArtifactStore
from converter.common.topology import STAGE_CACHE, bucket_key, bucket_stream
from converter.contracts.facts import JobDeleted, StageStarted
from converter.contracts.job import JobRecord, JobStatus, Options, Preprocess, Stage, StageState, Toolchain

from .conftest import Post, StartWorker, finished

TOOLCHAIN = Toolchain(name="copy", version="1")


def done(job: JobRecord) -> StageState:
    assert job.status is JobStatus.COMPLETED, job.error
    return job.stages[Stage.ONNX]


async def content(store: ArtifactStore, key: str) -> bytes:
    async with store.open(key) as download:
        return b"".join([chunk async for chunk in download.chunks])


@pytest.fixture
async def first(worker: StartWorker, post: Post, job_log: JobLog) -> JobRecord:
    """A job that was converted; every later worker of these tests refuses to convert."""
    job_id = await post()
    async with worker("copying", toolchain=TOOLCHAIN):
        return await finished(job_log, job_id)


async def test_an_equal_job_is_given_a_copy_and_no_converter_starts(
    worker: StartWorker, post: Post, job_log: JobLog, store: ArtifactStore, first: JobRecord
) -> None:
    second = await post(user_id="somebody-else")
    async with worker("refusing", toolchain=TOOLCHAIN):
        job = await finished(job_log, second)
    made, copied = done(first), done(job)
    assert (made.cached, copied.cached) == (False, True)
    assert made.artifact
    assert copied.artifact
    assert copied.artifact.object_key.startswith(f"jobs/{second}/onnx/1/")
    assert await content(store, copied.artifact.object_key) == b"model!"
    assert msgspec.structs.replace(copied.artifact, object_key="", created_at=AT) == msgspec.structs.replace(
        made.artifact, object_key="", created_at=AT
    )
    assert (job.toolchain, job.warnings) == (first.toolchain, first.warnings)
    assert made.report
    assert copied.report
    assert await content(store, copied.report.object_key) == await content(store, made.report.object_key)
    assert copied.log
    log = (await content(store, copied.log.object_key)).decode()
    assert log.startswith(f"Nothing was converted: job {first.job_id} ")
    assert "copying one input" in log


async def test_a_copy_outlives_the_job_that_it_was_made_of_and_a_deleted_job_gives_none(
    worker: StartWorker, post: Post, job_log: JobLog, store: ArtifactStore, first: JobRecord, tmp_path: Path
) -> None:
    second = await post()
    async with worker("refusing", toolchain=TOOLCHAIN):
        copied = done(await finished(job_log, second)).artifact
        await job_log.append(first.job_id, lambda _: JobDeleted(at=AT, reason="requested"))
        # Its objects are still there: it is the deletion that counts.
        third = await finished(job_log, await post())
    assert third.status is JobStatus.FAILED
    await store.delete_prefix(f"jobs/{first.job_id}/")
    assert copied
    await store.fetch(copied, tmp_path / "copied")


@pytest.mark.parametrize(
    "given",
    [
        {"client_id": "other"},
        {"client_id": "client.onnx"},
        {"content": b"other model"},
        {"filename": "other.onnx"},
        {"platform": "520"},
        {"model_id": 2},
        {"version": "0002"},
        {"options": Options(last_stage=Stage.ONNX, input_shape={"": (1, 3, 8, 8)})},
    ],
    ids=str,
)
async def test_whatever_decides_what_is_made_is_never_passed_over(
    worker: StartWorker, post: Post, job_log: JobLog, first: JobRecord, given: dict[str, Any]
) -> None:
    job_id = await post(**given)
    async with worker("refusing", toolchain=TOOLCHAIN):
        assert (await finished(job_log, job_id)).status is JobStatus.FAILED


async def test_options_that_the_converter_is_not_given_do_not_matter(
    worker: StartWorker, post: Post, job_log: JobLog, first: JobRecord
) -> None:
    later = Options(
        last_stage=Stage.ONNX, preprocess=Preprocess(preset="yolo"), quantization={"compiler_tiling": "deep_search"}
    )
    job_id = await post(options=later)
    async with worker("refusing", toolchain=TOOLCHAIN):
        assert done(await finished(job_log, job_id)).cached


@pytest.mark.parametrize(
    "toolchain",
    [
        Toolchain(name="copy", version="2"),
        Toolchain(name="copy", version="1", image_digest=SHA),
        Toolchain(name="other", version="1"),
        None,
    ],
    ids=str,
)
async def test_another_toolchain_does_its_own_work(
    worker: StartWorker, post: Post, job_log: JobLog, first: JobRecord, toolchain: Toolchain | None
) -> None:
    job_id = await post()
    async with worker("refusing", toolchain=toolchain):
        assert (await finished(job_log, job_id)).status is JobStatus.FAILED


@pytest.mark.parametrize("damage", ["artifact gone", "artifact cut", "artifact changed", "report gone", "log gone"])
async def test_what_cannot_be_copied_whole_is_made_anew(
    worker: StartWorker,
    post: Post,
    job_log: JobLog,
    store: ArtifactStore,
    first: JobRecord,
    damage: str,
    tmp_path: Path,
) -> None:
    what, how = damage.split()
    stored = getattr(done(first), what)
    await store.delete(stored.object_key)
    if how != "gone":
        await store.put(stored.object_key, b"mod" if how == "cut" else b"m0del!")
    job_id = await post()
    async with worker("copying", toolchain=TOOLCHAIN):
        state = done(await finished(job_log, job_id))
    assert not state.cached
    assert state.artifact
    await store.fetch(state.artifact, tmp_path / "artifact")
    # The work that was done again is what is copied from now on.
    job_id = await post()
    async with worker("refusing", toolchain=TOOLCHAIN):
        assert done(await finished(job_log, job_id)).cached


async def test_an_entry_that_is_none_is_passed_over(
    worker: StartWorker, post: Post, job_log: JobLog, bus: Bus, first: JobRecord
) -> None:
    (subject,) = await bus.subjects(bucket_stream(STAGE_CACHE), bucket_key(STAGE_CACHE, ">"))
    await bus.store(subject, b"\xff no job of anybody's *.>")
    job_id = await post()
    async with worker("copying", toolchain=TOOLCHAIN):
        assert not done(await finished(job_log, job_id)).cached


async def test_an_attempt_that_died_while_it_copied_is_followed_by_one_that_copies(
    worker: StartWorker, post: Post, job_log: JobLog, store: ArtifactStore, first: JobRecord
) -> None:
    job_id = await post()
    await job_log.append(job_id, lambda _: StageStarted(at=AT, stage=Stage.ONNX, attempt=1, worker="dead"))
    await store.put(f"jobs/{job_id}/onnx/1/reused/artifact", b"half")
    async with worker("refusing", toolchain=TOOLCHAIN):
        state = done(await finished(job_log, job_id))
    assert (state.cached, state.attempt) == (True, 2)


async def test_each_artifact_has_a_statement_and_a_copys_names_the_work_itself(
    worker: StartWorker, post: Post, job_log: JobLog, store: ArtifactStore, tmp_path: Path
) -> None:
    keys = key_pair(tmp_path)
    key, jobs = SigningKey.read(keys.private), []
    for converter in ("copying", "refusing"):
        job_id = await post()
        async with worker(converter, toolchain=TOOLCHAIN, signing_key=key):
            jobs.append(await finished(job_log, job_id))
    stated = []
    for job in jobs:
        state = done(job)
        assert state.artifact
        assert state.provenance
        assert state.provenance.filename == "out.bin.intoto.jsonl"
        await store.fetch(state.artifact, tmp_path / "artifact")
        await store.fetch(state.provenance, tmp_path / "statement")
        stated.append(verify_artifact(tmp_path / "artifact", tmp_path / "statement", keys.public))
    made, copied = stated
    assert made.invocation_id == f"{jobs[0].job_id}/onnx/1"
    assert made.reused_from is None
    assert copied.invocation_id == f"{jobs[1].job_id}/onnx/1"
    assert copied.reused_from == made.invocation_id
    assert made.parameters == copied.parameters
    assert made.parameters["options"] == {"input_shape": {}, "quantization": {}}
    model = {"name": "model", "digest": {"sha256": jobs[0].request.model.sha256}}
    toolchain = {"name": "toolchain", "uri": "pkg:generic/copy@1"}
    assert made.dependencies == copied.dependencies == [model, toolchain]
    assert made.started_on <= made.finished_on <= copied.started_on


async def test_without_a_key_nothing_is_stated(first: JobRecord) -> None:
    assert done(first).provenance is None
