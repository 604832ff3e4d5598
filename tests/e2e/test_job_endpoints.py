"""A job as a client follows, reads, fetches, cancels and deletes it, with real conversions behind."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import psutil
import pytest
from digits import Digits
from onnx import TensorProto, helper, numpy_helper
from published import validator
from upstream import Upstream
from waiting import eventually

from converter.common.eventlog import JobLog
from converter.common.lifecycle import Deleted, State
from converter.common.storage import open_s3
from converter.contracts.facts import StageCompleted, StageReleased
from converter.contracts.job import JobRecord, JobStatus, Stage
from converter.devstack import demo
from converter.devstack.stack import Stack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

DIES_WITHIN_S = 2.0
STOPS_WITHIN_S = 8.0
"""Far less than the conversion takes that is under way."""


@pytest.fixture
def client(stack: Stack, http: httpx.AsyncClient, token: str) -> Client:
    return Client(http, stack.env["GATEWAY_URL"], token)


class Client:
    """Asks the gateway with the stack's first client's token."""

    def __init__(self, http: httpx.AsyncClient, url: str, token: str) -> None:
        self._http, self._url = http, url
        self._headers = {"Authorization": f"Bearer {token}"}

    async def ask(self, method: str, path: str, body: object = None) -> httpx.Response:
        return await self._http.request(method, self._url + path, json=body, headers=self._headers)

    async def followed(self, path: str) -> list[tuple[str, Any]]:
        """Every event of a stream, once it has ended."""
        found, kind = [], ""
        async with asyncio.timeout(90), self._http.stream("GET", self._url + path, headers=self._headers) as answer:
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    found.append((kind, json.loads(value)))
        return found


def descendants(pid: int) -> set[psutil.Process]:
    return set(psutil.Process(pid).children(recursive=True))


async def test_a_job_can_be_followed_read_fetched_and_deleted(
    stack: Stack, client: Client, digits: Digits, http: httpx.AsyncClient
) -> None:
    job_id = (await digits.post("whole", images=20)).job_id
    path = f"/api/v1/jobs/{job_id}"
    events, lines = await asyncio.gather(client.followed(f"{path}/events"), client.followed(f"{path}/logs?follow=true"))
    kinds = [kind for kind, _ in events if kind != "progress"]
    assert kinds == ["job.created", *["stage.started", "stage.completed"] * 3, "job.completed"]
    told = [data for kind, data in events if kind == "progress"]
    assert {progress["stage"] for progress in told} >= {"bie"}
    assert [progress["progress"] for progress in told] == sorted(progress["progress"] for progress in told)
    assert lines[-1] == ("end", {"job_id": job_id, "status": "completed"})
    assert {data["stage"] for kind, data in lines if kind == "log"} <= {"onnx", "bie", "nef"}

    report = (await client.ask("GET", f"{path}/report")).json()
    assert list(report["stages"]) == ["onnx", "bie", "nef"]
    assert report["stages"]["nef"]["self_test"]["passed"]
    validator("report").validate(report)

    nef = events[-1][1]["artifacts"]["nef"]
    link = (await client.ask("POST", f"{path}/download-tokens")).json()["url"]
    fetched = await http.get(stack.env["GATEWAY_URL"] + link)
    assert hashlib.sha256(fetched.content).hexdigest() == nef["sha256"]
    assert fetched.headers["content-disposition"] == f'attachment; filename="{nef["filename"]}"'
    half = nef["size_bytes"] // 2
    parts = [
        await http.get(stack.env["GATEWAY_URL"] + link, headers={"Range": part})
        for part in (f"bytes=0-{half - 1}", f"bytes={half}-")
    ]
    assert b"".join(part.content for part in parts) == fetched.content

    assert (await client.ask("DELETE", path)).status_code == httpx.codes.NO_CONTENT
    assert (await http.get(stack.env["GATEWAY_URL"] + link)).status_code == httpx.codes.NOT_FOUND
    variables = stack.variables
    async with open_s3(
        variables["MINIO_ENDPOINT_URL"],
        variables["MINIO_BUCKET"],
        access_key=variables["MINIO_ACCESS_KEY"],
        secret_key=variables["MINIO_SECRET_KEY"],
    ) as store:
        assert [info.object_key async for info in store.list(f"jobs/{job_id}/")] == []
    assert await JobLog(stack.bus, "test").read(job_id) == Deleted()


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes more than a quarter of a minute to quantise with 100 images."""
    random = np.random.default_rng(1)
    channels, size, depth = 32, 256, 8
    weights = [
        numpy_helper.from_array(random.normal(0, 0.05, (channels, before, 3, 3)).astype(np.float32), f"w{number}")
        for number, before in enumerate([3, *[channels] * (depth - 1)])
    ]
    nodes = [
        helper.make_node("Conv", [f"x{number}", f"w{number}"], [f"x{number + 1}"], pads=[1, 1, 1, 1])
        for number in range(depth)
    ]
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info(f"x{depth}", TensorProto.FLOAT, [1, channels, size, size])],
        weights,
    )
    path = tmp_path_factory.mktemp("model") / "slow.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.parametrize("how", ["cancel", "delete"])
async def test_a_cancelled_conversion_is_dead_within_two_seconds_and_its_worker_free(
    stack: Stack, client: Client, upstream: Upstream, digits: Digits, slow_model: Path, how: str
) -> None:
    worker = stack.pids["stage-bie"]
    idle = descendants(worker)
    fields = demo.FIELDS | {"user_id": f"cancelled-{how}"}
    job_id = (await upstream.post(slow_model, digits.images[:100], fields)).job_id

    async def converting() -> set[psutil.Process]:
        return descendants(worker) - idle

    running = await eventually(converting, within_s=30)
    path = f"/api/v1/jobs/{job_id}"
    answer = await (client.ask("POST", f"{path}/cancel") if how == "cancel" else client.ask("DELETE", path))
    assert (answer.status_code, answer.json()["status"]) == (httpx.codes.ACCEPTED, "cancelled")

    async def dead() -> bool:
        return not any(process.is_running() for process in running)

    await eventually(dead, within_s=DIES_WITHIN_S)
    history = await JobLog(stack.bus, "test").history(job_id)
    assert not any(isinstance(event.fact, StageCompleted) and event.fact.stage is Stage.BIE for event in history)

    again = (await digits.post(f"cancelled-{how}", images=4)).job_id
    done = await JobLog(stack.bus, "test").wait(again, over, timeout_s=30)
    assert isinstance(done, JobRecord)
    assert done.status is JobStatus.COMPLETED
    assert (await client.ask("GET", path)).json()["status"] == "cancelled", "what the worker says late changes nothing"


async def test_a_worker_that_is_told_to_stop_gives_its_conversion_back_uncharged(
    stack: Stack, client: Client, upstream: Upstream, digits: Digits, slow_model: Path
) -> None:
    job_id = (await upstream.post(slow_model, digits.images[:100], demo.FIELDS | {"user_id": "drained"})).job_id
    job_log = JobLog(stack.bus, "test")

    def at_bie(state: State) -> bool:
        return isinstance(state, JobRecord) and state.stage is Stage.BIE and state.status is JobStatus.RUNNING

    await job_log.wait(job_id, at_bie, timeout_s=30)
    began = time.monotonic()
    await stack.stop("stage-bie")
    assert time.monotonic() - began < STOPS_WITHIN_S
    released = await job_log.read(job_id)
    assert isinstance(released, JobRecord)
    assert (released.status, released.stages[Stage.BIE].charged) == (JobStatus.QUEUED, 0)
    assert isinstance((await job_log.history(job_id))[-1].fact, StageReleased)

    await stack.start("stage-bie")
    taken = await job_log.wait(job_id, at_bie, timeout_s=30)
    assert isinstance(taken, JobRecord)
    assert (taken.stages[Stage.BIE].attempt, taken.stages[Stage.BIE].charged) == (2, 1)
    await client.ask("POST", f"/api/v1/jobs/{job_id}/cancel")


def over(state: State) -> bool:
    return isinstance(state, JobRecord) and state.announced
