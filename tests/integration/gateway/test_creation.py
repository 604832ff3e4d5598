"""Dry runs, models that are named instead of sent, digests of whole bodies."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest
from onnx import TensorProto, helper

from converter.common.bus import Bus
from converter.common.users import UserJobs
from converter.contracts.job import Stage
from converter.gateway.representation import no_worker

from .conftest import Form, GatewayProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

Stored = Callable[[], list[str]]


def model_with(op: str, shape: list[int | str]) -> bytes:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], name="odd")], "g", values[:1], values[1:])
    made: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    serialised: bytes = made.SerializeToString()
    return serialised


def alone(fields: dict[str, Any]) -> dict[str, tuple[None, str]]:
    """Makes httpx send a multipart form without a file."""
    return {name: (None, value) for name, value in fields.items()}


async def judged(client: httpx.AsyncClient, form: Form, model: bytes, **fields: object) -> dict[str, Any]:
    files = {"model": ("m.onnx", model)}
    answer = await client.post("/api/v1/jobs?dry_run=true", data=form.fields(**fields), files=files)
    assert answer.status_code == 200, answer.text
    verdict: dict[str, Any] = answer.json()
    return verdict


async def test_a_dry_run_tells_what_the_model_is_and_keeps_nothing(
    gateway: GatewayProcess, shared_bus: Bus, form: Form, model: bytes, stored: Stored
):
    before = stored()
    async with gateway.client() as client:
        verdict = await judged(client, form, model, preprocess="yolo", model_id="5")
        assert (await form.post(client, model)).status_code == 201
        assert (await judged(client, form, model))["valid"], "a held lock is no problem of the model"
    assert verdict["valid"]
    assert verdict["problems"] == []
    assert verdict["model"]["sha256"] == hashlib.sha256(model).hexdigest()
    assert verdict["model"]["inputs"] == [{"name": "image", "shape": ["N", 3, 32, 32]}]
    assert verdict["model"]["operators"]["Conv"] > 0
    assert verdict["options"]["preprocess"] == "yolo"
    assert len(verdict["warnings"]) == 1
    assert len(await UserJobs(shared_bus).newest_first("visiona", form.user_id)) == 1
    assert len({name.split("/")[1] for name in set(stored()) - set(before)}) == 1


async def test_what_the_chip_does_not_compute_is_told_before_any_work(
    gateway: GatewayProcess, new_form: Callable[[], Form]
):
    model = model_with("Sin", [1, 3])
    async with gateway.client() as client:
        verdict = await judged(client, new_form(), model, platform="520")
        job = (await new_form().post(client, model, platform="520")).json()
        unlisted = await judged(client, new_form(), model_with("Gelu", [1, 3]), platform="520")
    (row,) = verdict["operators"]["operators"]
    assert (verdict["valid"], row["op"], row["count"], row["verdict"]) == (True, "Sin", 1, "cpu-or-rewritten")
    assert verdict["operators"]["headline"].startswith("1 of 1 nodes")
    assert verdict["warnings"] == [f"Before optimisation: {verdict['operators']['headline']}"]
    assert job["warnings"] == [*verdict["warnings"], no_worker(Stage.ONNX)]
    assert [row["verdict"] for row in unlisted["operators"]["operators"]] == ["unknown"]
    assert (unlisted["operators"]["headline"], unlisted["warnings"]) == (None, [])


async def test_a_dry_run_warns_of_sizes_that_input_shape_replaces(gateway: GatewayProcess, form: Form, model: bytes):
    async with gateway.client() as client:
        verdict = await judged(client, form, model, input_shape="1,4,64,32")
        fitting = await judged(client, form, model, input_shape="image:1,3,32,32")
    assert verdict["valid"], "it may be meant"
    assert [warning for warning in verdict["warnings"] if "replaces" in warning] == [
        "input_shape replaces the size 3 of axis 1 of the input 'image' by 4.",
        "input_shape replaces the size 32 of axis 2 of the input 'image' by 64.",
    ]
    assert not [warning for warning in fitting["warnings"] if "replaces" in warning]


async def test_a_dry_run_names_what_would_fail(gateway: GatewayProcess, form: Form):
    async with gateway.client() as client:
        (problem,) = (await judged(client, form, model_with("Loop", [1, 3])))["problems"]
        assert (problem["code"], problem["node"], problem["op"]) == ("model_unsupported", "odd", "Loop")
        dynamic = model_with("Relu", ["N", 3, "H", 8])
        (problem,) = (await judged(client, form, dynamic))["problems"]
        assert problem["code"] == "input_shape_required"
        assert (await judged(client, form, dynamic, input_shape="1,3,8,8"))["valid"]
        assert not (await judged(client, form, dynamic, input_shape="z:1,3,8,8"))["valid"]


async def test_a_dry_run_refuses_bad_fields_as_ever(gateway: GatewayProcess, form: Form, model: bytes):
    files = {"model": ("m.onnx", model)}
    async with gateway.client() as client:
        bad = [("dry_run=true", form.fields(platform="1"))]
        bad += [(query, form.fields()) for query in ("dry_run=maybe", "dryrun=true", "dry_run=true&dry_run=true")]
        for query, fields in bad:
            answer = await client.post(f"/api/v1/jobs?{query}", data=fields, files=files)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "validation_error")
        answer = await client.post("/api/v1/jobs?dry_run=false", data=form.fields(), files=files)
        assert answer.status_code == 201


async def test_a_model_that_no_stage_converts_is_refused_with_its_code(gateway: GatewayProcess, form: Form):
    async with gateway.client() as client:
        answer = await form.post(client, model_with("If", [1, 3]))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_multipart")
    details = answer.json()["error"]["details"]
    assert (details["reason"], details["node"], details["op"]) == ("model_unsupported", "odd", "If")
    assert "control flow" in answer.json()["error"]["message"]


async def test_fields_without_end_hold_up_nobody(gateway: GatewayProcess, form: Form, new_form: Callable[[], Form]):
    hostile = b"\x08\x08" + b"\x72\x00" * (4 << 20)
    async with gateway.client() as client:
        uploading = asyncio.create_task(form.post(client, hostile))
        slowest = 0.0
        while not uploading.done():
            began = asyncio.get_running_loop().time()
            assert (await client.get("/health/live")).status_code == 200
            slowest = max(slowest, asyncio.get_running_loop().time() - began)
    assert "too many fields" in (await uploading).json()["error"]["message"]
    assert slowest < 1.0


async def test_a_model_that_was_sent_before_is_named_by_its_digest(
    gateway: GatewayProcess, new_form: Callable[[], Form], model: bytes, storage_dir: Path, image: bytes
):
    model += b"\x72\x00"  # one that no other test has sent
    digest = hashlib.sha256(model).hexdigest()
    async with gateway.client() as client, gateway.client(client_id="other") as other:
        fields = alone(new_form().fields(model_sha256=digest))
        unknown = await client.post("/api/v1/jobs", files=fields)
        assert unknown.status_code == 400
        first = (await new_form().post(client, model)).json()
        files = [*fields.items(), ("ref_images", ("1.png", image))]
        again = await client.post("/api/v1/jobs", files=files)
        assert again.status_code == 201, again.text
        assert again.json()["model"] == first["model"]
        foreign = await other.post("/api/v1/jobs", files=fields)
        assert (foreign.status_code, foreign.json()["error"]["details"]) == (400, unknown.json()["error"]["details"])
        verdict = (await client.post("/api/v1/jobs?dry_run=true", files=fields)).json()
        assert verdict["valid"], verdict
        paths = [storage_dir / f"jobs/{job['job_id']}/input/model.onnx" for job in (first, again.json())]
        assert [path.read_bytes() == model for path in paths] == [True, True]
        paths[1].unlink()
        assert (
            await client.post("/api/v1/jobs", files=alone(new_form().fields(model_sha256=digest)))
        ).status_code == 201
        for path in storage_dir.glob("jobs/*/input/model.onnx"):
            path.unlink()
        gone = await client.post("/api/v1/jobs", files=alone(new_form().fields(model_sha256=digest)))
        assert (gone.status_code, gone.json()["error"]["details"]) == (400, unknown.json()["error"]["details"])


async def test_all_that_is_bad_before_the_form_is_named_at_once(gateway: GatewayProcess, form: Form, model: bytes):
    headers = {"Idempotency-Key": "a b", "Content-Digest": "x"}
    async with gateway.client() as client:
        request = {"data": form.fields(), "files": {"model": ("m.onnx", model)}, "headers": headers}
        answer = await client.post("/api/v1/jobs?dry_run=x&y=1", **request)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "validation_error")
    named = [field["field"] for field in answer.json()["error"]["details"]["fields"]]
    assert sorted(named) == ["Content-Digest", "Idempotency-Key", "dry_run", "y"]


@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
async def test_a_digest_of_the_body_is_verified(
    gateway: GatewayProcess, form: Form, model: bytes, algorithm: str, stored: Stored
):
    async with gateway.client() as client:
        request = client.build_request("POST", "/api/v1/jobs", data=form.fields(), files={"model": ("m.onnx", model)})
        body = await request.aread()
        digest = base64.b64encode(hashlib.new(algorithm.replace("-", ""), body).digest()).decode()
        other = base64.b64encode(hashlib.new(algorithm.replace("-", ""), b"x").digest()).decode()
        headers = {"Content-Type": request.headers["content-type"]}
        before = stored()
        answer = await client.post(
            "/api/v1/jobs", content=body, headers={**headers, "Content-Digest": f"{algorithm}=:{other}:"}
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "digest_mismatch")
        assert stored() == before
        right = f"{algorithm}=:{digest}:"
        lines = [*headers.items(), *(("Content-Digest", line) for line in (right, f"sha-512=:{other}:"))]
        answer = await client.post("/api/v1/jobs", content=body, headers=lines)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "digest_mismatch")
        good = {**headers, "Content-Digest": f"md5=:AAAA:, {right}"}
        assert (await client.post("/api/v1/jobs", content=body, headers=good)).status_code == 201
        for malformed in ("sha-256=abc", "sha-256=:*:", "x", "sha-256=:a:"):
            answer = await client.post("/api/v1/jobs", content=body, headers={**headers, "Content-Digest": malformed})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "validation_error")
