"""A gateway that is told to stop lets an upload and a download end, and sends who follows a job to another gateway."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
import pytest_asyncio
from onnx import TensorProto, helper, numpy_helper
from upstream import fetch_token
from waiting import eventually

from converter.devstack import demo
from converter.devstack.addresses import SCOPES
from converter.devstack.stack import Stack

from .clients import SWEPT, Client
from .observer import Ledger, history, left_wrong

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

STOPPED = "api-gateway.1"
PIECE_BYTES = 1 << 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    settings = {"API_V1_RATE_LIMIT_MAX": "1000000", "CLAIM_GRACE_S": "2", **SWEPT, "UPLOAD_LIMIT_HOURS": "1"}
    async with Stack(tmp_path_factory.mktemp("stack"), workers={"gateway": 2}, settings=settings) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        token = await fetch_token(client, stack.env, scope=" ".join(SCOPES))
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


def large_model(size_bytes: int) -> bytes:
    """A model whose file is more than what sockets hold on the way."""
    weights = np.random.default_rng(0).standard_normal((size_bytes // 4 // 192, 192)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w"], ["y"], transB=1)],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


class Upload:
    """A request for a conversion that is sent by halves; `proceed` lets the second go."""

    def __init__(self, model: bytes) -> None:
        boundary = "a-boundary"
        fields = demo.FIELDS | {"user_id": "uploads", "targets": "onnx"}
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        ]
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="model"; filename="m.onnx"\r\n\r\n'
        self._content = "".join([*parts, head]).encode() + model + f"\r\n--{boundary}--\r\n".encode()
        self.headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(self._content)),
        }
        self.half_sent, self.proceed = asyncio.Event(), asyncio.Event()

    async def body(self) -> AsyncIterator[bytes]:
        half = len(self._content) // 2
        yield self._content[:half]
        self.half_sent.set()
        await self.proceed.wait()
        yield self._content[half:]


async def followed(http: httpx.AsyncClient, url: str, after: str | None = None) -> AsyncIterator[str]:
    """The ids of the events that the stream sends, until it ends."""
    headers = {"Last-Event-ID": after} if after else {}
    async with http.stream("GET", url, headers=headers) as stream:
        assert stream.status_code == httpx.codes.OK
        async for line in stream.aiter_lines():
            if line.startswith("id:"):
                yield line.removeprefix("id:").strip()


async def refuses(url: str) -> bool:
    """Whether nobody takes a new connection there."""
    try:
        async with httpx.AsyncClient(trust_env=False) as fresh:
            await fresh.get(f"{url}/health/ready")
    except httpx.ConnectError:
        return True
    return False


async def started_anew(stack: Stack, before: int) -> bool:
    """Whether the gateway has ended by itself, and another process has taken its place."""
    ended = '"service.stopped"' in (stack.directory / "logs" / f"{STOPPED}.log").read_text()
    return ended and stack.pids.get(STOPPED, before) != before


async def test_what_is_under_way_ends_and_who_follows_goes_on_at_another_gateway(
    stack: Stack, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    stopped, other = (f"{url}/api/v1/jobs" for url in stack.gateway_urls)
    with closing(Ledger(tmp_path / "ledger")) as ledger:
        client = Client(stack, http, ledger, seed=1)
        large = large_model(24 << 20)
        made = await client.end(await client.post("downloads", "downloads", "onnx", large))
        assert made["status"] == "completed", made["error"]
        link = (await http.post(f"{other}/{made['job_id']}/download-tokens", json={"source": "onnx"})).json()["url"]
        stack.send_signal("stage-onnx", signal.SIGSTOP)
        job_id = await client.post("follows", "follows", "onnx")

        upload = Upload(large)
        uploading = asyncio.create_task(http.post(stopped, content=upload.body(), headers=upload.headers))
        events = followed(http, f"{stopped}/{job_id}/events")
        async with http.stream("GET", f"{stack.gateway_urls[0]}{httpx.URL(link).path}") as download:
            assert download.status_code == httpx.codes.OK
            chunks = download.aiter_bytes(PIECE_BYTES)
            digest = hashlib.sha256(await anext(chunks))
            seen = [await anext(events)]
            await upload.half_sent.wait()

            before = stack.pids[STOPPED]
            stack.send_signal(STOPPED, signal.SIGTERM)
            seen += [event async for event in events]
            assert seen == ["1"], "it is told to go, and not that the job has ended"
            stack.send_signal("stage-onnx", signal.SIGCONT)
            seen += [event async for event in followed(http, f"{other}/{job_id}/events", after=seen[-1])]
            assert await refuses(stack.gateway_urls[0])
            assert stack.pids[STOPPED] == before

            upload.proceed.set()
            async for chunk in chunks:
                digest.update(chunk)
        answer = await uploading
        assert answer.status_code == httpx.codes.CREATED, answer.text
        ledger.accept(answer.json()["job_id"], "uploads")
        assert digest.hexdigest() == made["artifacts"]["onnx"]["sha256"]
        revisions = [str(message.job["revision"]) for message in await history(stack.bus, job_id) if message.job]
        assert seen == revisions, "none is missing, and none is there twice"
        await eventually(partial(started_anew, stack, before), within_s=60)
        assert (await client.end(answer.json()["job_id"]))["status"] == "completed"
        wrong = await left_wrong(stack, ledger)
        assert not wrong
