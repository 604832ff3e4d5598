"""What is converted twice is converted once; whose work it was, the statements say."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from digits import Digits
from upstream import Job, Upstream, fetch_token
from waiting import eventually

from converter.common.eventlog import JobLog
from converter.common.lifecycle import State
from converter.common.provenance import AnotherArtifact, Verified, verify_artifact
from converter.common.topology import stage_durable
from converter.contracts.facts import StageCompleted
from converter.contracts.job import STAGES, JobRecord, JobStatus, Stage
from converter.devstack.addresses import SCOPES
from converter.devstack.stack import Stack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

NOTHING, EVERYTHING = dict.fromkeys(STAGES, False), dict.fromkeys(STAGES, True)


def cached(job: Job) -> dict[str, bool]:
    return {stage: timing.cached for stage, timing in job.stage_timings.items()}


def over(state: State) -> bool:
    return isinstance(state, JobRecord) and state.announced


async def converted(upstream: Upstream, user_id: str, **fields: str) -> Job:
    """The model as everybody in this module posts it, once it is done."""
    job = await Digits(upstream).post(user_id, model_id="7", **fields)
    async with asyncio.timeout(60):
        while not job.over:
            await asyncio.sleep(0.05)
            job = await upstream.job(job.job_id)
    assert job.status == "completed", job.error
    return job


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def first(upstream: Upstream) -> Job:
    return await converted(upstream, "first")


async def test_the_same_again_starts_no_converter(stack: Stack, upstream: Upstream, first: Job) -> None:
    second = await converted(upstream, "second")
    assert (cached(first), cached(second)) == (NOTHING, EVERYTHING)
    assert [made.sha256 for made in second.artifacts.values()] == [made.sha256 for made in first.artifacts.values()]
    assert second.warnings == first.warnings
    assert await upstream.reports(second.job_id) == await upstream.reports(first.job_id)
    for stage in STAGES:
        assert f"job {first.job_id} had made the same" in await upstream.log(second.job_id, stage)


async def test_another_compile_option_needs_another_compilation_alone(upstream: Upstream, first: Job) -> None:
    changed = await converted(upstream, "compiling", quantization='{"compiler_tiling": "deep_search"}')
    assert cached(changed) == {Stage.ONNX: True, Stage.BIE: True, Stage.NEF: False}
    assert "compiler_tiling" in changed.warnings[-1]


async def test_another_calibration_needs_all_but_the_optimised_model(upstream: Upstream, first: Job) -> None:
    changed = await converted(upstream, "calibrating", preprocess="tensorflow")
    assert cached(changed) == {Stage.ONNX: True, Stage.BIE: False, Stage.NEF: False}


async def test_another_client_is_never_given_it(stack: Stack, http: httpx.AsyncClient, first: Job) -> None:
    env = stack.env
    other = env | {"CLIENT_ID": env["CLIENT2_ID"], "CLIENT_SECRET": env["CLIENT2_SECRET"]}
    token = await fetch_token(http, other, scope=" ".join(SCOPES))
    assert cached(await converted(Upstream(http, env["GATEWAY_URL"], token), "first")) == NOTHING


async def stated(stack: Stack, upstream: Upstream, job: Job, key: str) -> Verified:
    """What the promoted file's promoted statement says of it."""
    await upstream.promote(job.job_id, source="nef", key=key)
    return verify_artifact(
        stack.stored_file(key), stack.stored_file(f"{key}.intoto.jsonl"), Path(stack.env["PROVENANCE_PUBLIC_KEY_FILE"])
    )


async def test_a_promoted_file_and_its_statement_say_how_it_was_made(
    stack: Stack, upstream: Upstream, first: Job
) -> None:
    second = await converted(upstream, "promoting")
    worked = await stated(stack, upstream, first, "models/first.nef")
    copied = await stated(stack, upstream, second, "models/second.nef")
    assert worked.sha256 == copied.sha256 == first.artifacts["nef"].sha256
    assert worked.parameters["model_id"] == 7
    bie, toolchain = worked.dependencies
    assert bie == {"name": "bie", "digest": {"sha256": first.artifacts["bie"].sha256}}
    assert toolchain["uri"].startswith("pkg:generic/reference@")
    assert (worked.invocation_id, worked.reused_from) == (f"{first.job_id}/nef/1", None)
    assert (copied.invocation_id, copied.reused_from) == (f"{second.job_id}/nef/1", f"{first.job_id}/nef/1")
    with pytest.raises(AnotherArtifact):
        verify_artifact(
            stack.stored_file("models/first.nef.intoto.jsonl"),
            stack.stored_file("models/first.nef.intoto.jsonl"),
            Path(stack.env["PROVENANCE_PUBLIC_KEY_FILE"]),
        )


async def test_a_copy_outlives_the_job_that_did_the_work_and_nothing_is_left_to_copy(
    stack: Stack, upstream: Upstream, http: httpx.AsyncClient, token: str, tmp_path: Path
) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    jobs = f"{stack.env['GATEWAY_URL']}/api/v1/jobs"
    worked = await converted(upstream, "brief", version="00aa")
    copied = await converted(upstream, "lasting", version="00aa")
    assert (cached(worked), cached(copied)) == (NOTHING, EVERYTHING)
    deleted = await http.delete(f"{jobs}/{worked.job_id}", headers=headers)
    assert deleted.status_code == httpx.codes.NO_CONTENT
    for file in ("artifact", "provenance"):
        order = {"source": "bie", "file": file}
        link = await http.post(f"{jobs}/{copied.job_id}/download-tokens", json=order, headers=headers)
        fetched = await http.get(stack.env["GATEWAY_URL"] + link.json()["url"])
        assert fetched.status_code == httpx.codes.OK
        (tmp_path / file).write_bytes(fetched.content)
    public_key = Path(stack.env["PROVENANCE_PUBLIC_KEY_FILE"])
    verified = verify_artifact(tmp_path / "artifact", tmp_path / "provenance", public_key)
    assert verified.name == copied.artifacts["bie"].filename
    assert cached(await converted(upstream, "late", version="00aa")) == NOTHING


FAILPOINTS = ("before:reuse", "after:reuse", "before:publish", "after:publish")


@pytest.mark.parametrize(("failpoint", "stage"), list(zip(FAILPOINTS, itertools.cycle(STAGES), strict=False)))
async def test_a_stage_that_is_killed_while_it_copies_completes_the_job_once(
    stack: Stack, upstream: Upstream, first: Job, failpoint: str, stage: Stage
) -> None:
    name = stage_durable(stage)
    await stack.kill(name)
    await stack.start(name, env={"FAILPOINT": failpoint})
    before = stack.pids[name]
    job_log = JobLog(stack.bus, "test")
    posted = await Digits(upstream).post(failpoint.replace(":", "-"), model_id="7")
    job = await job_log.wait(posted.job_id, over, timeout_s=60)
    assert isinstance(job, JobRecord)
    assert job.status is JobStatus.COMPLETED, job.error
    assert all(state.cached for state in job.stages.values())
    completions = [e.fact.stage for e in await job_log.history(posted.job_id) if isinstance(e.fact, StageCompleted)]
    assert completions == list(STAGES)

    async def died() -> bool:
        return stack.pids.get(name) not in (None, before)

    await eventually(died, within_s=20)
