from __future__ import annotations

import asyncio
import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from waiting import eventually

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.identifiers import uuid7
from converter.common.topology import stage_durable
from converter.common.users import ActiveJobs, UserJobs
from converter.common.workers import Presence
from converter.contracts.facts import JobCancelled
from converter.contracts.job import JobRecord, Stage, moment, timestamp
from converter.gateway.representation import no_worker

from .conftest import Form, GatewayProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

HIDDEN = {"date", "x-request-id", "ratelimit-remaining", "x-ratelimit-remaining", "ratelimit-reset"}
"""What tells requests apart, whatever they ask for."""


def without_id(answer: httpx.Response) -> tuple[int, dict[str, str], object]:
    body = answer.json()
    del body["error"]["request_id"]
    return answer.status_code, {name: value for name, value in answer.headers.items() if name not in HIDDEN}, body


async def end(bus: Bus, job_id: str) -> None:
    await JobLog(bus, "test").append(job_id, lambda _: JobCancelled(at=timestamp()))


async def test_a_job_is_created_with_its_files_and_its_record(
    gateway: GatewayProcess, shared_bus: Bus, form: Form, model: bytes, image: bytes, storage_dir: Path
):
    images = [("ref_images", ("b/ü 1.png", image)), ("ref_images[]", ("..\\2.PNG", image + b"2"))]
    async with gateway.client() as client:
        answer = await client.post(
            "/api/v1/jobs",
            data=form.fields(input_shape=["x:1,1,8,8"], preprocess="yolo"),
            files=[("model", ("C:\\models\\digits.ONNX", model)), *images],
        )
        assert answer.status_code == 201, answer.text
        job = answer.json()
        assert answer.headers["location"] == f"/api/v1/jobs/{job['job_id']}"
        got = await client.get(answer.headers["location"])
    assert got.json() == job
    assert got.headers["etag"] == answer.headers["etag"]
    assert job["model"] == {
        "filename": "digits.ONNX",
        "size_bytes": len(model),
        "sha256": hashlib.sha256(model).hexdigest(),
    }
    assert (job["status"], job["stage"], job["client_id"], job["user_id"]) == (
        "queued",
        "onnx",
        "visiona",
        form.user_id,
    )
    assert job["options"] == {
        "targets": "nef",
        "input_shape": {"x": [1, 1, 8, 8]},
        "preprocess": "yolo",
        "quantization": {},
    }
    assert (job["ref_images_count"], job["error"], job["progress"]) == (2, None, 0.0)
    assert job["warnings"] == [no_worker(Stage.ONNX)]
    assert (moment(job["expires_at"]) - moment(job["created_at"])).days == 7

    record = await JobLog(shared_bus, "test").read(job["job_id"])
    assert isinstance(record, JobRecord)
    assert (storage_dir / record.request.model.object_key).read_bytes() == model
    assert record.request.ref_images is not None
    archive = (storage_dir / record.request.ref_images.object_key).read_bytes()
    assert hashlib.sha256(archive).hexdigest() == record.request.ref_images.sha256
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.namelist() == ["000___1.png", "001_2.PNG"]
        assert [opened.read(name) for name in opened.namelist()] == [image, image + b"2"]
        assert opened.testzip() is None


async def test_parts_may_come_in_any_order(gateway: GatewayProcess, form: Form, model: bytes, image: bytes):
    parts: list[tuple[str, Any]] = [
        ("ref_images", ("1.png", image)),
        ("model", ("m.onnx", model)),
        ("ref_images", ("2.png", image)),
        *[(name, (None, value)) for name, value in form.fields().items()],
    ]
    async with gateway.client() as client:
        answer = await client.post("/api/v1/jobs", files=parts)
    assert answer.status_code == 201, answer.text
    assert answer.json()["ref_images_count"] == 2


async def test_the_same_images_make_the_same_archive(
    gateway: GatewayProcess, shared_bus: Bus, model: bytes, image: bytes, new_form: Callable[[], Form]
):
    digests = set()
    async with gateway.client() as client:
        for _ in range(2):
            files = [("model", ("m.onnx", model)), *[("ref_images", (f"{n}.png", image)) for n in range(3)]]
            job = (await client.post("/api/v1/jobs", data=new_form().fields(), files=files)).json()
            record = await JobLog(shared_bus, "test").read(job["job_id"])
            assert isinstance(record, JobRecord)
            assert record.request.ref_images is not None
            digests.add(record.request.ref_images.sha256)
    assert len(digests) == 1


async def test_a_vendor_model_id_is_a_warning(gateway: GatewayProcess, form: Form, model: bytes):
    async with gateway.client() as client:
        job = (await form.post(client, model, model_id="5")).json()
    vendors, _ = job["warnings"]
    assert "32767" in vendors


async def test_a_second_job_of_a_user_waits_for_the_first_to_end(
    gateway: GatewayProcess, shared_bus: Bus, form: Form, model: bytes
):
    async with gateway.client() as client:
        first = (await form.post(client, model)).json()
        refused = await form.post(client, model)
        assert refused.status_code == 409
        assert refused.json()["error"]["code"] == "user_has_active_job"
        details = refused.json()["error"]["details"]
        assert details["active_job_id"] == first["job_id"]
        assert details["active_job_status"] == "queued"
        assert details["active_job_created_at"] == first["created_at"]
        await end(shared_bus, first["job_id"])
        assert (await form.post(client, model)).status_code == 201


async def test_a_held_lock_is_told_before_the_model_is_read(gateway: GatewayProcess, form: Form, model: bytes):
    async with gateway.client() as client:
        assert (await form.post(client, model)).status_code == 201
        refused = await form.post(client, model + bytes(50_000_000))
    assert refused.status_code == 409
    assert refused.headers["connection"] == "close"


async def test_the_lock_is_claimed_after_the_upload_and_the_loser_leaves_no_files(
    gateway: GatewayProcess, form: Form, model: bytes, stored: Callable[[], list[str]]
):
    before = set(stored())
    async with gateway.client() as client:
        answers = await asyncio.gather(*(form.post(client, model) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    job_id = next(answer.json()["job_id"] for answer in answers if answer.status_code == 201)
    assert {name.split("/")[1] for name in set(stored()) - before} == {job_id}


async def test_a_claim_without_a_job_is_told_like_a_job(
    gateway: GatewayProcess, shared_bus: Bus, form: Form, model: bytes
):
    job_id = uuid7()
    await ActiveJobs(shared_bus, JobLog(shared_bus, "test")).claim("visiona", form.user_id, job_id)
    async with gateway.client() as client:
        details = (await form.post(client, model)).json()["error"]["details"]
    assert (details["active_job_id"], details["active_job_status"]) == (job_id, "queued")
    assert moment(details["active_job_created_at"])


async def test_an_unchanged_job_is_not_sent_again(gateway: GatewayProcess, shared_bus: Bus, form: Form, model: bytes):
    async with gateway.client() as client:
        job = (await form.post(client, model)).json()
        path = f"/api/v1/jobs/{job['job_id']}"
        tag = (await client.get(path)).headers["etag"]
        for condition in (tag, f"W/{tag}", f'"x", {tag}', "*"):
            answer = await client.get(path, headers={"If-None-Match": condition})
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
        several = await client.get(path, headers=[("If-None-Match", '"x"'), ("If-None-Match", tag)])
        assert several.status_code == 304
        await end(shared_bus, job["job_id"])
        changed = await client.get(path, headers={"If-None-Match": tag})
        assert (changed.status_code, changed.json()["status"]) == (200, "cancelled")
        assert changed.headers["etag"] != tag


async def test_an_unchanged_list_is_not_sent_again(gateway: GatewayProcess, shared_bus: Bus, form: Form, model: bytes):
    async with gateway.client() as client:
        job = (await form.post(client, model)).json()
        path = f"/api/v1/jobs?user_id={form.user_id}"
        known = {"If-None-Match": (await client.get(path)).headers["etag"]}
        answer = await client.get(path, headers=known)
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", known["If-None-Match"])
        await end(shared_bus, job["job_id"])
        changed = await client.get(path, headers=known)
        assert (changed.status_code, changed.json()["items"][0]["status"]) == (200, "cancelled")


async def test_another_clients_job_looks_like_none(gateway: GatewayProcess, form: Form, model: bytes):
    async with gateway.client() as client, gateway.client(client_id="other") as other:
        job_id = (await form.post(client, model)).json()["job_id"]
        body = {"target_object_key": "a/b"}
        for absent in (uuid7(), "x", "*", ">", "a.b", job_id.upper()):
            for path in ("", "/promote"):
                method = "POST" if path else "GET"
                foreign, none = [
                    await other.request(method, f"/api/v1/jobs/{id_}{path}", json=body if path else None)
                    for id_ in (job_id, absent)
                ]
                assert without_id(foreign) == without_id(none)
                assert (foreign.status_code, foreign.json()["error"]["code"]) == (404, "job_not_found")
        listed = await other.get("/api/v1/jobs", params={"user_id": form.user_id})
        assert listed.json() == {"items": [], "next_cursor": None}
        assert (await form.post(other, model)).status_code == 201


async def test_a_list_is_paged_newest_first_and_stable_while_jobs_arrive(
    gateway: GatewayProcess, shared_bus: Bus, form: Form, model: bytes
):
    async with gateway.client() as client:

        async def posted() -> str:
            job_id: str = (await form.post(client, model)).json()["job_id"]
            await end(shared_bus, job_id)
            return job_id

        async def page(**params: object) -> dict[str, Any]:
            answer = await client.get("/api/v1/jobs", params={"user_id": form.user_id, **params})
            assert answer.status_code == 200, answer.text
            read: dict[str, Any] = answer.json()
            return read

        jobs = [await posted() for _ in range(5)]
        first = await page(limit=2)
        assert [job["job_id"] for job in first["items"]] == [jobs[4], jobs[3]]
        newer = await posted()
        second = await page(limit=2, cursor=first["next_cursor"])
        assert [job["job_id"] for job in second["items"]] == [jobs[2], jobs[1]]
        last = await page(limit=2, cursor=second["next_cursor"])
        assert [job["job_id"] for job in last["items"]] == [jobs[0]]
        assert last["next_cursor"] is None
        assert [job["job_id"] for job in (await page())["items"]] == [newer, *reversed(jobs)]
        assert (await page(status="queued"))["items"] == []
        assert len((await page(status="cancelled", limit=100))["items"]) == 6


async def test_a_list_skips_what_was_indexed_but_never_created(
    gateway: GatewayProcess, shared_bus: Bus, form: Form, model: bytes
):
    async with gateway.client() as client:
        job_id = (await form.post(client, model)).json()["job_id"]
        await UserJobs(shared_bus).add("visiona", form.user_id, uuid7())
        listed = (await client.get("/api/v1/jobs", params={"user_id": form.user_id, "limit": 1})).json()
    assert [job["job_id"] for job in listed["items"]] == [job_id]
    assert listed["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("", {"user_id"}),
        ("user_id=a&limit=0&status=x", {"limit", "status"}),
        ("user_id=a&cursor=abc", {"cursor"}),
        ("user_id=%00", {"user_id"}),
    ],
)
async def test_a_bad_query_names_every_parameter(gateway: GatewayProcess, query: str, fields: set[str]):
    async with gateway.client() as client:
        answer = await client.get(f"/api/v1/jobs?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "validation_error")
    assert {field["field"] for field in answer.json()["error"]["details"]["fields"]} == fields


async def test_a_job_without_a_worker_says_so_until_one_appears(
    gateway: GatewayProcess, shared_bus: Bus, form: Form, model: bytes
):
    async with gateway.client() as client:
        path = (await form.post(client, model)).headers["Location"]

        async def warned() -> bool:
            return no_worker(Stage.ONNX) in (await client.get(path)).json()["warnings"]

        async def not_warned() -> bool:
            return not await warned()

        await eventually(warned)
        alone = await client.get(path)
        async with Presence(shared_bus, stage_durable(Stage.ONNX), concurrency=1).shown(1):
            await eventually(not_warned)
            assert (await client.get(path)).headers["ETag"] != alone.headers["ETag"]
        await eventually(warned)
