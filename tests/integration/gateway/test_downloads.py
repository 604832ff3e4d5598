"""Artifacts by link: the whole file, parts of it, and nobody else's."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jobs
import psutil
import pytest
from msgspec.structs import replace
from waiting import eventually

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.contracts.facts import JobCompleted
from converter.contracts.job import Artifact, Stage
from converter.devstack import demo

from .conftest import Form, GatewayProcess, StartGateway, function_fixture, module_fixture

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = demo.DATA / "digits_cnn.onnx"
FILENAME = '模型 "1".ref.onnx'


class Made:
    """A completed job with one artifact."""

    def __init__(self, job_id: str, content: bytes, path: Path) -> None:
        self.job_id, self.content, self.path = job_id, content, path
        self.sha256 = hashlib.sha256(content).hexdigest()


async def made(gateway: GatewayProcess, bus: Bus, storage_dir: Path, content: bytes) -> Made:
    async with gateway.client() as client:
        job_id = (await Form().post(client, MODEL.read_bytes(), targets="onnx")).json()["job_id"]
    key = f"jobs/{job_id}/onnx/1/artifact"
    path = storage_dir / key
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    result = Made(job_id, content, path)
    artifact = Artifact(
        object_key=key,
        size_bytes=len(content),
        sha256=result.sha256,
        filename=FILENAME,
        media_type="application/vnd.example",
        created_at=jobs.AT,
    )
    job_log = JobLog(bus, "test")
    completed = replace(jobs.completed(Stage.ONNX), artifact=artifact)
    for fact in (jobs.started(Stage.ONNX), completed, JobCompleted(at=jobs.AT)):
        await job_log.append(job_id, lambda _, fact=fact: fact)  # type: ignore[misc]  # mypy does not infer the default
    return result


@module_fixture
async def artifact(gateway: GatewayProcess, shared_bus: Bus, storage_dir: Path) -> Made:
    content = random.Random(1).randbytes(3_000_001)  # noqa: S311 - the same bytes each time
    return await made(gateway, shared_bus, storage_dir, content)


@function_fixture
async def client(gateway: GatewayProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client() as opened:
        yield opened


@function_fixture
async def anybody(gateway: GatewayProcess) -> AsyncIterator[httpx.AsyncClient]:
    """Without a token of the issuer."""
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as opened:
        yield opened


async def link(client: httpx.AsyncClient, job_id: str, **body: object) -> dict[str, Any]:
    answer = await client.post(f"/api/v1/jobs/{job_id}/download-tokens", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    given: dict[str, Any] = answer.json()
    return given


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_whoever_has_the_link_gets_the_artifact_under_its_name(
    client: httpx.AsyncClient, anybody: httpx.AsyncClient, artifact: Made
):
    given = await link(client, artifact.job_id)
    answer = await anybody.get(given["url"])
    assert answer.status_code == 200
    assert answer.content == artifact.content
    assert answer.headers["content-length"] == str(len(artifact.content))
    assert answer.headers["etag"] == f'"{artifact.sha256}"'
    assert answer.headers["content-type"] == "application/vnd.example"
    assert answer.headers["x-content-type-options"] == "nosniff"
    disposition = answer.headers["content-disposition"]
    assert disposition == (
        "attachment; filename=\"__ _1_.ref.onnx\"; filename*=UTF-8''%E6%A8%A1%E5%9E%8B%20_1_.ref.onnx"
    )
    head = await anybody.head(given["url"])
    assert (head.status_code, head.content) == (200, b"")
    assert {name: head.headers[name] for name in ("content-length", "etag", "accept-ranges", "content-type")} == {
        name: answer.headers[name] for name in ("content-length", "etag", "accept-ranges", "content-type")
    }


async def test_the_body_may_be_left_out_and_every_bad_field_is_named(client: httpx.AsyncClient, artifact: Made):
    path = f"/api/v1/jobs/{artifact.job_id}/download-tokens"
    assert (await client.post(path)).status_code == 201
    answer = await client.post(path, json={"source": "zip", "more": 1})
    assert code(answer) == (400, "validation_error")
    assert {field["field"] for field in answer.json()["error"]["details"]["fields"]} == {"source", "more"}
    assert code(await client.post(path, content=b"{}")) == (415, "unsupported_media_type")
    answer = await client.post(path, json={"source": "bie"})
    assert code(answer) == (409, "source_not_available")
    assert answer.json()["error"]["details"]["available"] == ["onnx"]


async def test_parts_put_together_are_the_whole(client: httpx.AsyncClient, anybody: httpx.AsyncClient, artifact: Made):
    url, size = (await link(client, artifact.job_id))["url"], len(artifact.content)
    step = 700_000
    parts = []
    for first in range(0, size, step):
        answer = await anybody.get(url, headers={"Range": f"bytes={first}-{first + step - 1}"})
        assert answer.status_code == 206
        last = min(first + step, size) - 1
        assert answer.headers["content-range"] == f"bytes {first}-{last}/{size}"
        parts.append(answer.content)
    assert b"".join(parts) == artifact.content
    for header, expected in {
        "bytes=-5": artifact.content[-5:],
        f"bytes={size - 1}-": artifact.content[-1:],
        "bytes=3-3": artifact.content[3:4],
    }.items():
        answer = await anybody.get(url, headers={"Range": header})
        assert (answer.status_code, answer.content) == (206, expected)


async def test_a_range_past_the_end_is_a_416_that_says_the_size(
    client: httpx.AsyncClient, anybody: httpx.AsyncClient, artifact: Made
):
    url, size = (await link(client, artifact.job_id))["url"], len(artifact.content)
    answer = await anybody.get(url, headers={"Range": f"bytes={size}-"})
    assert code(answer) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{size}"


async def test_a_download_goes_on_only_with_the_same_file(
    client: httpx.AsyncClient, anybody: httpx.AsyncClient, artifact: Made
):
    url = (await link(client, artifact.job_id))["url"]
    part = {"Range": "bytes=10-19"}
    same = await anybody.get(url, headers=part | {"If-Range": f'"{artifact.sha256}"'})
    assert (same.status_code, same.content) == (206, artifact.content[10:20])
    other = await anybody.get(url, headers=part | {"If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, artifact.content)
    known = await anybody.get(url, headers={"If-None-Match": f'"{artifact.sha256}"'})
    assert (known.status_code, known.content) == (304, b"")
    for condition in ('"other"', f'W/"{artifact.sha256}"'):
        changed = await anybody.get(url, headers={"If-Match": condition, "If-None-Match": "*"})
        assert code(changed) == (412, "precondition_failed")
        assert changed.headers["etag"] == f'"{artifact.sha256}"'
    for condition in ("*", f'"other", "{artifact.sha256}"'):
        assert (await anybody.get(url, headers=part | {"If-Match": condition})).status_code == 206


async def test_a_head_tells_of_the_whole_whatever_range_it_names(
    client: httpx.AsyncClient, anybody: httpx.AsyncClient, artifact: Made
):
    url, size = (await link(client, artifact.job_id))["url"], len(artifact.content)
    for unheeded in ("bytes=10-19", f"bytes={size}-"):
        head = await anybody.head(url, headers={"Range": unheeded})
        assert (head.status_code, head.headers["content-length"]) == (200, str(size))
        assert "content-range" not in head.headers


async def test_a_link_that_was_tampered_with_looks_like_any_unknown_path(
    client: httpx.AsyncClient, anybody: httpx.AsyncClient, artifact: Made
):
    url = (await link(client, artifact.job_id))["url"]
    head, token = url[: -len(url.rpartition("/")[2])], url.rpartition("/")[2]
    for place in range(0, len(token), 7):
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        assert code(await anybody.get(head + changed)) == (404, "not_found")
    for nonsense in ("x", token[:-4], token + "AAAA", "%00", token.lower(), "=" * 92):
        assert code(await anybody.get(head + nonsense)) == (404, "not_found")


async def test_past_its_time_a_link_is_gone(start_gateway: StartGateway, anybody: httpx.AsyncClient, artifact: Made):
    key = "one key for both gateways, long enough"
    gateway = await start_gateway(DOWNLOAD_LINK_TTL_S="1", SIGNING_KEY=key, PUBLIC_BASE_URL="https://x.example/conv/")
    async with gateway.client() as client:
        given = await link(client, artifact.job_id)
        assert given["url"].startswith("https://x.example/conv/api/v1/downloads/")
        path = given["url"].removeprefix("https://x.example/conv")

        async def gone() -> httpx.Response | None:
            answer = await client.get(path)
            return answer if answer.status_code != 200 else None

        answer = await eventually(gone)
    assert code(answer) == (410, "link_expired")
    assert answer.json()["error"]["details"]["expired_at"] == given["expires_at"]


async def test_the_links_of_a_deleted_job_lead_nowhere(
    gateway: GatewayProcess,
    client: httpx.AsyncClient,
    anybody: httpx.AsyncClient,
    shared_bus: Bus,
    storage_dir: Path,
):
    short = await made(gateway, shared_bus, storage_dir, b"short")
    url = (await link(client, short.job_id))["url"]
    assert (await anybody.get(url)).content == b"short"
    assert (await client.delete(f"/api/v1/jobs/{short.job_id}")).status_code == 204
    assert code(await anybody.get(url)) == (404, "not_found")


async def test_bytes_that_are_not_the_recorded_ones_are_never_given_whole(
    gateway: GatewayProcess,
    client: httpx.AsyncClient,
    anybody: httpx.AsyncClient,
    shared_bus: Bus,
    storage_dir: Path,
):
    spoilt = await made(gateway, shared_bus, storage_dir, b"0123456789")
    url = (await link(client, spoilt.job_id))["url"]
    spoilt.path.write_bytes(b"012345678X")
    with pytest.raises(httpx.RemoteProtocolError):
        await anybody.get(url)
    spoilt.path.write_bytes(b"shorter")
    assert code(await anybody.get(url)) == (500, "internal_error")
    spoilt.path.unlink()
    assert code(await anybody.get(url)) == (500, "internal_error")


async def test_a_token_is_not_in_the_log(start_gateway: StartGateway, artifact: Made, tmp_path: Path):
    gateway = await start_gateway()
    async with gateway.client() as client:
        url = (await link(client, artifact.job_id))["url"]
        await client.get(url)

    async def logged() -> bool:
        return "/api/v1/downloads/" in (tmp_path / "gateway.log").read_text()

    await eventually(logged)
    assert url.rpartition("/")[2] not in (tmp_path / "gateway.log").read_text()


async def test_a_client_that_reads_slowly_costs_no_memory(
    start_gateway: StartGateway, shared_bus: Bus, storage_dir: Path
):
    gateway = await start_gateway()
    large = await made(gateway, shared_bus, storage_dir, os.urandom(1 << 20) * 64)
    async with gateway.client() as client:
        url = (await link(client, large.job_id))["url"]
    process = psutil.Process(gateway.process.pid)
    before = process.memory_info().rss
    request = f"GET {url} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    readers = []
    for _ in range(4):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1 << 16)
        writer.write(request)
        assert re.match(rb"HTTP/1.1 200", await reader.readline())
        readers.append((reader, writer))
    reader, writer = readers[0]
    received = 0
    await reader.readuntil(b"\r\n\r\n")
    while received < 64 << 20:
        received += len(await reader.read(1 << 16))
        assert process.memory_info().rss - before < 24 << 20
    for _, writer in readers:
        writer.transport.abort()
