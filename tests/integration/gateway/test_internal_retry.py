"""A job run again: the same inputs, copied by the storage, and other options where they are given."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.contracts.job import JobRecord

from .conftest import Form, GatewayProcess, function_fixture

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASKED = {
    "input_shape": ["image:1,1,8,8", "mask:1,8"],
    "preprocess": json.dumps({"mean": [1.5, 2], "scale": 3, "channel_order": "bgr"}),
    "quantization": json.dumps({"datapath_bitwidth_mode": "int16", "percentage": 0.9995}),
    "targets": "bie",
}


@function_fixture
async def operators(gateway: GatewayProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.operators() as opened:
        yield opened


@function_fixture
async def theirs(gateway: GatewayProcess, model: bytes, image: bytes) -> dict[str, Any]:
    """A client's job with every option set."""
    files = [("model", ("digits.onnx", model)), ("ref_images", ("1.png", image)), ("ref_images", ("2.png", image))]
    async with gateway.client() as client:
        posted = await client.post("/api/v1/jobs", data=Form().fields(**ASKED), files=files)
    assert posted.status_code == 201, posted.text
    job: dict[str, Any] = posted.json()
    return job


async def record_of(bus: Bus, job_id: str) -> JobRecord:
    state = await JobLog(bus, "test").read(job_id)
    assert isinstance(state, JobRecord)
    return state


async def test_what_is_not_changed_is_kept_and_the_inputs_are_copies(
    operators: httpx.AsyncClient, shared_bus: Bus, storage_dir: Path, theirs: dict[str, Any], model: bytes
):
    answer = await operators.post(f"/jobs/{theirs['job_id']}/retry")
    assert answer.status_code == 201
    new = answer.json()
    assert answer.headers["location"] == f"/jobs/{new['job_id']}"
    same = ("platform", "model_id", "version", "model", "ref_images_count", "options")
    assert {name: new[name] for name in same} == {name: theirs[name] for name in same}
    assert new["job_id"] != theirs["job_id"]
    assert (new["client_id"], new["user_id"], new["v1_status"]) == ("@internal", None, "queued")

    first, second = await record_of(shared_bus, theirs["job_id"]), await record_of(shared_bus, new["job_id"])
    assert first.request.options == second.request.options
    await operators.post(f"/jobs/{first.job_id}/cancel")
    assert (await operators.delete(f"/jobs/{first.job_id}")).status_code == 204
    assert second.request.ref_images is not None
    for stored in (second.request.model, second.request.ref_images):
        assert stored.object_key.startswith(f"jobs/{second.job_id}/input/")
        assert (storage_dir / stored.object_key).stat().st_size == stored.size_bytes
    assert (storage_dir / second.request.model.object_key).read_bytes() == model


async def test_what_is_changed_is_in_place_of_the_old(operators: httpx.AsyncClient, theirs: dict[str, Any]):
    changes = {
        "platform": "730",
        "model_id": 40002,
        "version": "00ff",
        "targets": "nef",
        "input_shape": ["1,1,16,16"],
        "preprocess": {"mean": 127.5, "scale": 128},
        "quantization": {"mode": 2},
    }
    new = (await operators.post(f"/jobs/{theirs['job_id']}/retry", json=changes)).json()
    assert (new["platform"], new["model_id"], new["version"]) == ("730", 40002, "00ff")
    assert new["options"] == {
        "targets": "nef",
        "input_shape": {"": [1, 1, 16, 16]},
        "preprocess": {"mean": [127.5], "scale": [128.0]},
        "quantization": {"mode": 2},
    }
    plain = {"input_shape": [], "preprocess": "yolo", "quantization": {}}
    options = (await operators.post(f"/jobs/{theirs['job_id']}/retry", json=plain)).json()["options"]
    assert options == {"targets": "bie", "input_shape": {}, "preprocess": "yolo", "quantization": {}}


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"platform": "999", "targets": "zip", "model_id": 0}, ["model_id", "platform", "targets"]),
        ({"platform": 720, "model_id": True, "version": 1}, ["model_id", "platform", "version"]),
        ({"platform": None, "input_shape": [1], "quantization": []}, ["input_shape", "platform", "quantization"]),
        ({"input_shape": "x"}, ["input_shape"]),
        ({"quantization": {"speed": 1}, "preprocess": {"gamma": 2}}, ["preprocess", "quantization"]),
        ({"platform": "520"}, ["quantization"]),
        ({"user_id": "alice", "model": "x"}, ["model", "user_id"]),
    ],
)  # fmt: skip
async def test_every_field_that_cannot_be_taken_is_named_and_nothing_is_left(
    operators: httpx.AsyncClient,
    theirs: dict[str, Any],
    stored: Callable[[], list[str]],
    changes: dict[str, Any],
    fields: list[str],
):
    before = stored()
    answer = await operators.post(f"/jobs/{theirs['job_id']}/retry", json=changes)
    assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")
    assert sorted({problem["field"] for problem in answer.json()["details"]["fields"]}) == fields
    assert stored() == before


async def test_json_of_another_kind_is_told_what_would_do(operators: httpx.AsyncClient, theirs: dict[str, Any]):
    answer = await operators.post(f"/jobs/{theirs['job_id']}/retry", json={"input_shape": 5})
    (problem,) = answer.json()["details"]["fields"]
    assert problem["message"] == "found 5; allowed: a text, or a list of texts, as name:1,3,224,224"


async def test_a_body_that_is_no_json_object_is_refused(operators: httpx.AsyncClient, theirs: dict[str, Any]):
    path = f"/jobs/{theirs['job_id']}/retry"
    form = await operators.post(path, data={"platform": "520"})
    assert (form.status_code, form.json()["code"]) == (415, "unsupported_media_type")
    for body in ("[]", "{", '{"platform": "520", "platform": "530"}'):
        answer = await operators.post(path, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")


async def test_a_job_whose_inputs_are_lost_leaves_nothing_of_its_repetition(
    operators: httpx.AsyncClient,
    shared_bus: Bus,
    storage_dir: Path,
    theirs: dict[str, Any],
    stored: Callable[[], list[str]],
):
    references = (await record_of(shared_bus, theirs["job_id"])).request.ref_images
    assert references is not None
    (storage_dir / references.object_key).unlink()
    before = stored()
    answer = await operators.post(f"/jobs/{theirs['job_id']}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "inputs_lost")
    assert answer.json()["details"]["hint"]
    assert stored() == before, "the copy of the model is gone"
