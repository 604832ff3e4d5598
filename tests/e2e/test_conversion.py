"""HTTP in, promoted file out: what a client gets is true."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from digits import Digits
from onnx import TensorProto, helper
from PIL import Image
from upstream import Job, Refused, Upstream, fetch_token

from converter.common.eventlog import JobLog
from converter.contracts.facts import PromotionRequested
from converter.devstack import demo
from converter.devstack.addresses import SCOPES
from converter.devstack.stack import Stack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


async def ended(upstream: Upstream, job: Job) -> Job:
    async with asyncio.timeout(60):
        while not job.over:
            await asyncio.sleep(0.05)
            job = await upstream.job(job.job_id)
    return job


async def test_the_promoted_file_is_the_artifact_and_its_figures_can_be_recomputed(
    stack: Stack, upstream: Upstream, digits: Digits
) -> None:
    job = await ended(upstream, await digits.post("figures", images=100))
    assert job.status == "completed", job.error
    await upstream.promote(job.job_id, source="nef", key="models/figures/digits.ref.nef")
    promoted = stack.stored_file("models/figures/digits.ref.nef")
    assert hashlib.sha256(promoted.read_bytes()).hexdigest() == job.artifacts["nef"].sha256

    with zipfile.ZipFile(promoted) as package:
        report = json.loads(package.read("report.json"))
        preprocess = json.loads(package.read("manifest.json"))["about"]["preprocess"]
        quantised = package.read("model.onnx")
    assert report["accuracy"]["held_out"]
    assert not set(report["accuracy"]["samples"]) & set(report["calibration"]["used_names"])
    images = {f"{number:03d}_{file.name}": file for number, file in enumerate(digits.images)}
    samples = [preprocessed(images[name], preprocess) for name in report["accuracy"]["samples"]]

    expected = outputs(digits.model.read_bytes(), samples)
    found = outputs(quantised, samples)
    noise = float(np.square(expected - found).sum())
    snr_db = 10 * math.log10(float(np.square(expected).sum()) / noise)
    agreement = float((expected.argmax(1) == found.argmax(1)).mean())
    assert report["accuracy"]["snr_db"] == pytest.approx(snr_db, abs=0.05)
    assert report["accuracy"]["top1_agreement"]["simulated"] == pytest.approx(agreement)
    assert snr_db > 20, "eight bits are enough for this model"


def preprocessed(file: Path, how: dict[str, Any]) -> npt.NDArray[np.float32]:
    image = Image.open(file).convert("RGB")
    assert image.size == (how["width"], how["height"])
    pixels = np.asarray(image, np.float32)
    return ((pixels - np.float32(how["mean"])) / np.float32(how["scale"])).transpose(2, 0, 1)[None]


def outputs(model: bytes, samples: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float64]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (name,) = [given.name for given in session.get_inputs()]
    return np.concatenate([session.run(None, {name: sample})[0] for sample in samples]).astype(np.float64)


async def test_a_job_may_stop_after_a_stage(upstream: Upstream, digits: Digits) -> None:
    job = await ended(upstream, await digits.post("early", targets="onnx"))
    assert job.status == "completed"
    assert list(job.artifacts) == ["onnx"]


async def test_a_conversion_that_fails_tells_why_and_the_user_can_post_again_at_once(
    upstream: Upstream, digits: Digits, tmp_path: Path
) -> None:
    dynamic = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], name="relu")],
        "dynamic",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, "H", "W"])],
    )
    model = tmp_path / "dynamic.onnx"
    onnx.save(helper.make_model(dynamic, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), model)
    fields = demo.FIELDS | {"user_id": "unlucky"}
    job = await ended(upstream, await upstream.post(model, [], fields))
    assert job.status == "failed"
    assert job.error
    assert (job.error.code, job.error.stage) == ("input_shape_required", "onnx")
    assert "'x'" in job.error.message
    assert "input_shape" in job.error.hint

    again = await upstream.post(model, [], fields | {"input_shape": "x:1,3,8,8"})
    assert (await ended(upstream, again)).status == "completed"


async def test_a_text_file_named_onnx_is_refused_and_said_what_it_looks_like(
    upstream: Upstream, tmp_path: Path
) -> None:
    text = tmp_path / "model.onnx"
    text.write_text("This is no model.\n" * 100)
    with pytest.raises(Refused, match=r"400.*text"):
        await upstream.post(text, [], demo.FIELDS | {"user_id": "text"})


async def test_promoting_the_same_artifact_to_the_same_key_uploads_once(
    stack: Stack, upstream: Upstream, digits: Digits
) -> None:
    job = await ended(upstream, await digits.post("twice"))
    await asyncio.gather(*(upstream.promote(job.job_id, source="nef", key="twice.nef") for _ in range(5)))
    await upstream.promote(job.job_id, source="nef", key="twice.nef")
    history = await JobLog(stack.bus, "test").history(job.job_id)
    assert sum(isinstance(event.fact, PromotionRequested) for event in history) == 1


async def test_another_clients_job_looks_like_one_that_does_not_exist(
    stack: Stack, http: httpx.AsyncClient, digits: Digits
) -> None:
    job = await digits.post("private")
    other = stack.env | {"CLIENT_ID": stack.env["CLIENT2_ID"], "CLIENT_SECRET": stack.env["CLIENT2_SECRET"]}
    headers = {
        "Authorization": f"Bearer {await fetch_token(http, other, scope=' '.join(SCOPES))}",
        "X-Request-Id": "same",
    }
    absent = "0199c1f2-0000-7000-8000-000000000000"
    answers = [
        await http.get(f"{stack.env['GATEWAY_URL']}/api/v1/jobs/{id_}", headers=headers) for id_ in (job.job_id, absent)
    ]
    for answer in answers:
        for changing in ("date", "ratelimit-remaining", "x-ratelimit-remaining", "ratelimit-reset"):
            answer.headers.pop(changing)
    assert answers[0].status_code == httpx.codes.NOT_FOUND
    assert answers[0].content == answers[1].content
    assert answers[0].headers == answers[1].headers
