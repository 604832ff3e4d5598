"""A client that a generator makes of the document works, from the upload to the promotion."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from converter.common.bus import Bus

from .conftest import Form, GatewayProcess, function_fixture, module_fixture
from .finished import ARTIFACT, LOG, REPORT, finish, promoting

pytestmark = pytest.mark.asyncio(loop_scope="module")

PACKAGE = "converter_client"
TIME_LIMIT_S = 60.0


class Generated:
    """The package, and a client made with it."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - its classes are generated
        self.client, self.models, self.types = client, module("models"), module("types")

    async def call(self, operation: str, **arguments: object) -> Any:  # noqa: ANN401 - as above
        """What the answer was read as; an answer that the document does not know is an error."""
        return await module(f"api.{operation}").asyncio(client=self.client, **arguments)

    async def create(self, form: Form, model: bytes) -> Any:  # noqa: ANN401 - as above
        body = self.models.CreateJobJobForm(
            user_id=form.user_id,
            platform=self.models.CreateJobJobFormPlatform("720"),
            model_id=32769,
            version="0001",
            targets=self.models.CreateJobJobFormTargets("onnx"),
            model=self.types.File(io.BytesIO(model), "digits.onnx", "application/octet-stream"),
        )
        return await self.call("jobs.create_job", body=body)


def module(name: str) -> Any:  # noqa: ANN401 - as above
    return importlib.import_module(f"{PACKAGE}.{name}")


@module_fixture
async def package(gateway: GatewayProcess, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[None]:
    """What the generator makes of the document that the gateway serves, ready to be imported."""
    directory = tmp_path_factory.mktemp("generated")
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
        (directory / "openapi.json").write_bytes((await client.get("/openapi")).content)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"),
        *("--path", "openapi.json", "--output-path", PACKAGE),
        cwd=directory,
        env=os.environ | {"PATH": os.defpath},  # without ruff, with which it would tidy up
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(TIME_LIMIT_S):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(directory)
        yield


@function_fixture
async def generated(gateway: GatewayProcess, package: None) -> AsyncIterator[Generated]:
    client = module("client").AuthenticatedClient(
        base_url=gateway.url,
        token=gateway.issuer.token(),
        httpx_args={"trust_env": False},
        raise_on_unexpected_status=True,
    )
    async with client:
        yield Generated(client)


async def test_it_posts_a_job_finds_it_again_and_cancels_it(generated: Generated, form: Form, model: bytes):
    created = await generated.create(form, model)
    assert isinstance(created, generated.models.JobResource)
    found = await generated.call("jobs.get_job", job_id=created.job_id)
    assert (found.model.filename, found.status) == ("digits.onnx", "queued")
    page = await generated.call("jobs.list_jobs", user_id=form.user_id)
    assert [job.job_id for job in page.items] == [found.job_id]
    refused = await generated.create(form, model)
    assert isinstance(refused, generated.models.Error)
    assert refused.error.code == "user_has_active_job"
    cancelled = await generated.call("jobs.cancel_job", job_id=created.job_id)
    assert cancelled.status in {"cancelling", "cancelled"}


async def test_it_reads_downloads_promotes_and_deletes_what_a_job_made(
    generated: Generated, form: Form, model: bytes, shared_bus: Bus, storage_dir: Path
):
    job_id = (await generated.create(form, model)).job_id
    await finish(job_id, shared_bus, storage_dir)
    job = await generated.call("jobs.get_job", job_id=job_id)
    assert (job.status, job.artifacts.additional_properties["onnx"].size_bytes) == ("completed", len(ARTIFACT))
    report = await generated.call("artifacts.get_report", job_id=job_id)
    assert report.to_dict() == {"job_id": job_id, "stages": {"onnx": json.loads(REPORT)}}
    onnx = generated.models.GetLogsStage("onnx")
    assert await generated.call("artifacts.get_logs", job_id=job_id, stage=onnx) == LOG.decode()
    link = await generated.call(
        "artifacts.create_download_link", job_id=job_id, body=generated.models.CreateDownloadLinkBody()
    )
    assert await generated.call("artifacts.download", token=link.url.rpartition("/")[2]) == ARTIFACT
    order = generated.models.PromotePromotionOrder(target_object_key="models/digits.onnx")
    async with promoting(job_id, shared_bus):
        promotion = await generated.call("jobs.promote", job_id=job_id, body=order)
    assert (promotion.status, promotion.source) == ("completed", "onnx")
    assert await generated.call("jobs.delete_job", job_id=job_id) is None
    gone = await generated.call("jobs.get_job", job_id=job_id)
    assert gone.error.code == "job_not_found"
