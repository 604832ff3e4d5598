"""The internal face with real conversions behind: what the web page and operators do."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from digits import Digits

from converter.common.eventlog import JobLog
from converter.contracts.job import JobRecord, Stage
from converter.devstack import demo
from converter.devstack.stack import Stack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

JOBS = 50
FIELDS = {"platform": "720", "model_id": "40001", "version": "0001"}


@pytest_asyncio.fixture(loop_scope="module")
async def operators(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.env["INTERNAL_URL"], trust_env=False, timeout=60) as client:
        yield client


async def post(operators: httpx.AsyncClient, *, images: int = 0, **fields: str) -> str:
    files = [("model", ("digits.onnx", (demo.DATA / "digits_cnn.onnx").read_bytes()))]
    files += [("ref_images", (path.name, path.read_bytes())) for path in Digits.images[:images]]
    answer = await operators.post("/jobs", data=FIELDS | fields, files=files)
    assert answer.status_code == httpx.codes.CREATED, answer.text
    job_id: str = answer.json()["job_id"]
    return job_id


async def followed(operators: httpx.AsyncClient, job_id: str) -> list[tuple[str, Any]]:
    """Every event of a job until it has ended."""
    found, kind = [], ""
    async with asyncio.timeout(120), operators.stream("GET", f"/jobs/{job_id}/events") as answer:
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                found.append((kind, json.loads(value)))
    return found


async def test_a_job_is_posted_followed_fetched_promoted_repeated_and_deleted(
    operators: httpx.AsyncClient, http: httpx.AsyncClient, stack: Stack, token: str
) -> None:
    job_id = await post(operators, images=20)
    events = await followed(operators, job_id)
    assert {kind for kind, _ in events} == {"status", "progress", "log"}
    words = [job["status"] for kind, job in events if kind == "status"]
    assert list(dict.fromkeys(words)) == ["ONNX", "BIE", "NEF", "COMPLETED"]
    assert events[-1][0] == "status"
    assert {line["stage"] for kind, line in events if kind == "log"} == {"onnx", "bie", "nef"}

    files = events[-1][1]["files"]
    assert [(file["stage"], file["kind"]) for file in files] == [
        (stage, kind) for stage in ("onnx", "bie", "nef") for kind in ("artifact", "provenance", "report", "log")
    ]
    for file in files:
        fetched = await operators.get(f"/jobs/{job_id}/download/{file['filename']}")
        assert hashlib.sha256(fetched.content).hexdigest() == file["sha256"]
    report = (await operators.get(f"/jobs/{job_id}/report")).json()
    assert list(report["stages"]) == ["onnx", "bie", "nef"]

    promoted = await operators.post(f"/jobs/{job_id}/promote", json={"target_object_key": "operators/digits.nef"})
    assert (promoted.status_code, promoted.json()["status"]) == (httpx.codes.OK, "completed")

    again = await operators.post(f"/jobs/{job_id}/retry", json={"platform": "730", "targets": "bie"})
    assert again.status_code == httpx.codes.CREATED
    *_, (_, repeated) = await followed(operators, again.json()["job_id"])
    assert (repeated["status"], repeated["platform"], list(repeated["artifacts"])) == (
        "COMPLETED",
        "730",
        ["onnx", "bie"],
    )

    public = f"{stack.env['GATEWAY_URL']}/api/v1/jobs/{job_id}"
    theirs = await http.get(public, headers={"Authorization": f"Bearer {token}"})
    assert theirs.status_code == httpx.codes.NOT_FOUND
    assert (await operators.delete(f"/jobs/{job_id}")).status_code == httpx.codes.NO_CONTENT
    assert (await operators.get(f"/jobs/{job_id}/download/{files[0]['filename']}")).status_code == httpx.codes.NOT_FOUND


async def test_the_queues_are_told_true_while_fifty_jobs_run(stack: Stack, operators: httpx.AsyncClient) -> None:
    job_log = JobLog(stack.bus, "test")

    async def unfinished(ids: list[str]) -> int:
        """The truth: jobs whose first stage the log does not say to be done."""
        states = [await job_log.read(job_id) for job_id in ids]
        return sum(isinstance(state, JobRecord) and state.artifact(Stage.ONNX) is None for state in states)

    await stack.kill("stage-onnx")
    ids = [await post(operators, targets="onnx") for _ in range(JOBS)]
    onnx = (await operators.get("/queues/stats")).json()["stages"]["onnx"]
    assert (onnx["pending"], onnx["in_progress"], onnx["redelivered"]) == (JOBS, 0, 0)
    assert onnx["oldest_age_s"] > 0
    await stack.start("stage-onnx")

    left, seen_busy = JOBS, False
    async with asyncio.timeout(200):
        while left:
            before = await unfinished(ids)
            told = (await operators.get("/queues/stats")).json()["stages"]
            left, onnx = await unfinished(ids), told["onnx"]
            slots = sum(worker["concurrency"] for worker in onnx["workers"])
            # A message is settled right after the log has its job's end: for each slot one may not be yet.
            assert left <= onnx["pending"] + onnx["in_progress"] <= before + slots
            assert onnx["in_progress"] <= slots
            for worker in onnx["workers"]:
                assert worker["state"] == ("busy" if worker["jobs"] else "idle")
                assert set(worker["jobs"]) <= set(ids)
                seen_busy |= worker["state"] == "busy"
            assert (told["bie"]["pending"], told["nef"]["pending"]) == (0, 0)
    assert seen_busy
    page = (await operators.get(f"/jobs?limit={JOBS}")).json()["jobs"]
    assert [job["job_id"] for job in page] == sorted(ids, reverse=True)
    assert {job["status"] for job in page} == {"COMPLETED"}
