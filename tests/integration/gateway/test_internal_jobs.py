"""The jobs of all clients, as operators post, list, look at, fetch from and end them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from waiting import eventually

from converter.common.bus import Bus
from converter.common.topology import ACTIVE_JOBS, JOBS_BY_USER, bucket_key, bucket_stream
from converter.contracts.quantization import KEYWORDS, Between, OneOf
from converter.gateway.intake.options import PLATFORMS, Fields, JobOrder
from converter.gateway.report.page import POLICY

from .conftest import Form, GatewayProcess, StartGateway, becomes, function_fixture
from .finished import ARTIFACT, LOG, REPORT, finish

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPERATORS = "@internal"
MIXBW = {"datapath_bitwidth_mode": "mixbw", "weight_bitwidth_mode": "mixbw"}
FIELDS = {"platform": "720", "model_id": "32769", "version": "0001"}


@function_fixture
async def client(gateway: GatewayProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client() as opened:
        yield opened


@function_fixture
async def operators(gateway: GatewayProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.operators() as opened:
        yield opened


async def post(operators: httpx.AsyncClient, model: bytes, filename: str = "m.onnx", **fields: str) -> httpx.Response:
    return await operators.post("/jobs", data=FIELDS | fields, files={"model": (filename, model)})


async def listed(operators: httpx.AsyncClient, job_id: str, query: str = "") -> bool:
    """Whether the job is on the first page."""
    found = (await operators.get(f"/jobs?limit=100{query}")).json()["jobs"]
    return job_id in [job["job_id"] for job in found]


async def test_a_job_of_operators_is_no_users_and_locks_nobody(
    operators: httpx.AsyncClient, shared_bus: Bus, model: bytes
):
    buckets = (ACTIVE_JOBS, JOBS_BY_USER)
    before = [await shared_bus.subjects(bucket_stream(bucket), bucket_key(bucket, ">")) for bucket in buckets]
    first, second = await post(operators, model), await post(operators, model)
    assert (first.status_code, second.status_code) == (201, 201)
    job = first.json()
    assert first.headers["location"] == f"/jobs/{job['job_id']}"
    assert (job["user_id"], job["client_id"]) == (None, OPERATORS)
    assert (job["status"], job["v1_status"], job["stage"]) == ("ONNX", "queued", "onnx")
    after = [await shared_bus.subjects(bucket_stream(bucket), bucket_key(bucket, ">")) for bucket in buckets]
    assert after == before


async def test_a_form_of_operators_has_no_user(operators: httpx.AsyncClient, model: bytes):
    answer = await post(operators, model, user_id="alice")
    assert answer.status_code == 400
    assert [field["field"] for field in answer.json()["details"]["fields"]] == ["user_id"]


async def test_a_dry_run_keeps_nothing(operators: httpx.AsyncClient, model: bytes):
    answer = await operators.post("/jobs?dry_run=true", data=FIELDS, files={"model": ("m.onnx", model)})
    assert answer.status_code == 200
    assert answer.json()["valid"]


async def test_no_client_sees_a_job_of_operators(
    gateway: GatewayProcess, operators: httpx.AsyncClient, client: httpx.AsyncClient, model: bytes
):
    job_id = (await post(operators, model)).json()["job_id"]
    path = f"/api/v1/jobs/{job_id}"
    answers = [await client.get(f"{path}{below}") for below in ("", "/events", "/report", "/logs")]
    answers += [await client.post(f"{path}/cancel"), await client.delete(path)]
    answers.append(await client.post(f"{path}/promote", json={"target_object_key": "k"}))
    answers.append(await client.post(f"{path}/download-tokens"))
    assert {(answer.status_code, answer.json()["error"]["code"]) for answer in answers} == {(404, "job_not_found")}
    for user_id in (OPERATORS, "", "internal"):
        page = await client.get("/api/v1/jobs", params={"user_id": user_id})
        assert job_id not in page.text
    async with gateway.client(client_id=OPERATORS) as impostor:
        answer = await impostor.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_token")
    assert (await operators.get(f"/jobs/{job_id}")).json()["v1_status"] == "queued"


async def test_operators_see_and_end_the_jobs_of_every_client(
    operators: httpx.AsyncClient, client: httpx.AsyncClient, model: bytes
):
    form = Form()
    job_id = (await form.post(client, model)).json()["job_id"]
    found = await operators.get(f"/jobs/{job_id}")
    assert (found.json()["client_id"], found.json()["user_id"]) == ("visiona", form.user_id)
    assert await eventually(lambda: _unchanged(operators, f"/jobs/{job_id}"))
    stale = await operators.post(f"/jobs/{job_id}/cancel", headers={"If-Match": '"other"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
    cancelled = await operators.post(f"/jobs/{job_id}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "CANCELLED")
    assert (await client.get(f"/api/v1/jobs/{job_id}")).json()["status"] == "cancelled"
    assert (await operators.delete(f"/jobs/{job_id}")).status_code == 204
    assert (await client.get(f"/api/v1/jobs/{job_id}")).status_code == 404
    await eventually(lambda: _not_listed(operators, job_id))


async def _unchanged(operators: httpx.AsyncClient, path: str) -> bool:
    """Whether a second look is spared the body; the job's place in the queue may become known between two."""
    tag = (await operators.get(path)).headers["etag"]
    return (await operators.get(path, headers={"If-None-Match": tag})).status_code == 304


async def _not_listed(operators: httpx.AsyncClient, job_id: str) -> bool:
    return not await listed(operators, job_id)


async def test_the_list_has_all_clients_newest_first_in_pages_that_stay(
    gateway: GatewayProcess, operators: httpx.AsyncClient, client: httpx.AsyncClient, model: bytes
):
    async with gateway.client(client_id="other") as other:
        ids = [(await Form().post(poster, model)).json()["job_id"] for poster in (client, other, client)]
    ids.append((await post(operators, model)).json()["job_id"])
    await eventually(lambda: listed(operators, ids[-1]))
    first = (await operators.get("/jobs?limit=2")).json()
    assert [job["job_id"] for job in first["jobs"]] == [ids[3], ids[2]]
    await post(operators, model)
    second = (await operators.get(f"/jobs?limit=2&cursor={first['next_cursor']}")).json()
    assert [job["job_id"] for job in second["jobs"]] == [ids[1], ids[0]]
    assert [job["client_id"] for job in second["jobs"]] == ["other", "visiona"]


async def test_the_last_page_says_that_it_is(operators: httpx.AsyncClient, model: bytes):
    ids = [(await post(operators, model, "last-page.onnx")).json()["job_id"] for _ in range(2)]
    await eventually(lambda: listed(operators, ids[-1]))
    pages = [(await operators.get(f"/jobs?limit={limit}&q=last-page")).json() for limit in (1, 2, 3)]
    assert [page["next_cursor"] for page in pages] == [ids[1], None, None]


async def test_each_filter_keeps_what_fits_it(operators: httpx.AsyncClient, client: httpx.AsyncClient, model: bytes):
    form = Form()
    theirs = (await form.post(client, model)).json()["job_id"]
    own = (await post(operators, model, "Filtered Ünique.onnx", platform="520")).json()["job_id"]
    await operators.post(f"/jobs/{theirs}/cancel")
    await eventually(lambda: listed(operators, theirs, "&status=CANCELLED"))
    of_both = {
        "": {theirs, own},
        f"client_id={OPERATORS}": {own},
        "client_id=visiona": {theirs},
        f"user_id={form.user_id}": {theirs},
        "platform=520": {own},
        "platform=720": {theirs},
        "status=CANCELLED": {theirs},
        "status=cancelled": {theirs},
        "status=ONNX": {own},
        "status=queued": {own},
        "q=ünique": {own},
        f"q={theirs[:20].upper()}": {theirs},
        "platform=520&status=CANCELLED": set(),
        "status=&platform=&q=": {theirs, own},
    }
    found = {}
    for query in of_both:
        page = (await operators.get(f"/jobs?limit=100&{query}")).json()["jobs"]
        found[query] = {job["job_id"] for job in page} & {theirs, own}
    assert found == of_both


async def test_the_files_that_a_job_names_are_downloaded_by_these_names(
    operators: httpx.AsyncClient, shared_bus: Bus, storage_dir: Path, model: bytes
):
    job_id = (await post(operators, model, targets="onnx")).json()["job_id"]
    await finish(job_id, shared_bus, storage_dir)
    job = (await operators.get(f"/jobs/{job_id}")).json()
    assert (job["status"], job["v1_status"]) == ("COMPLETED", "completed")
    contents = {}
    for file in job["files"]:
        answer = await operators.get(f"/jobs/{job_id}/download/{file['filename']}")
        contents[file["kind"]] = answer.content
        assert answer.headers["content-type"] == file["media_type"]
        assert answer.headers["content-disposition"] == f'attachment; filename="{file["filename"]}"'
        assert answer.headers["etag"] == f'"{file["sha256"]}"'
    assert contents == {"artifact": ARTIFACT, "report": REPORT, "log": LOG}

    path = f"/jobs/{job_id}/download/m.opt.onnx"
    tag = {"If-Range": answer.headers["etag"]}
    part = await operators.get(path, headers={"Range": "bytes=3-11"})
    assert (part.status_code, part.content) == (206, ARTIFACT[3:12])
    assert (await operators.get(path, headers={"Range": "bytes=3-11"} | tag)).content == ARTIFACT
    outside = await operators.get(path, headers={"Range": "bytes=1000-"})
    assert (outside.status_code, outside.json()["code"]) == (416, "range_not_satisfiable")
    for name in ("other", "..%2Freport", "%2e%2e", "artifact", "model.onnx"):
        missing = await operators.get(f"/jobs/{job_id}/download/{name}")
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


async def test_report_and_log_of_any_job_are_there(
    operators: httpx.AsyncClient, client: httpx.AsyncClient, shared_bus: Bus, storage_dir: Path, model: bytes
):
    job_id = (await Form().post(client, model, targets="onnx")).json()["job_id"]
    await finish(job_id, shared_bus, storage_dir)
    assert REPORT in (await operators.get(f"/jobs/{job_id}/report")).content
    page = await operators.get(f"/jobs/{job_id}/report", headers={"Accept": "text/html"})
    assert (page.headers["content-type"], page.headers["content-security-policy"]) == (
        "text/html; charset=utf-8",
        POLICY,
    )
    assert LOG in (await operators.get(f"/jobs/{job_id}/logs")).content


async def test_what_a_form_may_offer_is_what_the_intake_takes(operators: httpx.AsyncClient):
    offered = (await operators.get("/options")).json()
    assert offered["platforms"] == list(PLATFORMS)
    assert "user_id" not in offered["fields"]
    fields = offered["fields"]
    assert {name for name, field in fields.items() if field["required"]} == {"platform", "model_id", "version"}
    assert (fields["preprocess"]["default"], fields["targets"]["default"]) == ("kneron", "nef")
    assert all(field["description"] for field in fields.values())
    for platform in PLATFORMS:
        for name, keyword in KEYWORDS.items():
            described = offered["quantization"][platform].get(name, {"allowed": []})
            if isinstance(keyword.allowed, OneOf):
                assert described["allowed"] == [one for one in keyword.allowed.choices if taken(platform, name, one)]
            elif isinstance(keyword.allowed, Between):
                assert taken(platform, name, described["minimum"])
                assert taken(platform, name, described["maximum"])
                assert not taken(platform, name, described["maximum"] + 0.01)
            else:
                assert ("by_node" in described) == taken(platform, name, {})


def taken(platform: str, keyword: str, value: object) -> bool:
    """Whether the intake takes it, together with whatever else it needs."""
    for others in ({}, {"datapath_range_method": "mmse"}, {"datapath_bitwidth_mode": "mixbw"}, MIXBW):
        fields = Fields(with_user=False)
        for name, text in (FIELDS | {"platform": platform}).items():
            fields.add(name, text)
        fields.add("quantization", json.dumps(others | {keyword: value}))
        if isinstance(fields.order(), JobOrder):
            return True
    return False


async def test_limits_are_those_of_this_gateway(start_gateway: StartGateway):
    gateway = await start_gateway(MULTIPART_MODEL_MAX_BYTES="1000", MULTIPART_REF_IMAGES_MAX_COUNT="3")
    async with gateway.operators() as operators:
        limits = (await operators.get("/options")).json()["limits"]
        assert (limits["model_max_bytes"], limits["ref_images_max_count"]) == (1000, 3)
        too_large = await operators.post("/jobs", data=FIELDS, files={"model": ("m.onnx", bytes(1001))})
        assert (too_large.status_code, too_large.json()["code"]) == (413, "file_too_large")


async def test_uploads_of_both_faces_are_counted_together(
    start_gateway: StartGateway, stored: Callable[[], list[str]], model: bytes
):
    gateway = await start_gateway(MAX_CONCURRENT_UPLOADS="1")

    async def unending() -> AsyncIterator[bytes]:
        for name, value in Form().fields().items():
            yield f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        yield b'--b\r\nContent-Disposition: form-data; name="model"; filename="m.onnx"\r\n\r\n' + model[:50_000]
        await asyncio.Event().wait()

    before = stored()
    async with gateway.client() as client, gateway.operators() as operators:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        holding = asyncio.create_task(client.post("/api/v1/jobs", content=unending(), headers=headers))
        await becomes(lambda: stored() != before)
        busy = await post(operators, model)
        assert (busy.status_code, busy.json()["code"]) == (503, "service_busy")
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)


async def test_a_path_tells_its_methods(operators: httpx.AsyncClient):
    assert (await operators.options("/jobs")).headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert (await operators.options("/jobs/x")).headers["allow"] == "DELETE, GET, HEAD, OPTIONS"
