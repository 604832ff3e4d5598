"""A client that a generator makes of the document works."""

from __future__ import annotations

import asyncio
import importlib
import io
import os
import sys
from pathlib import Path

import httpx
import pytest

from .conftest import Form, GatewayProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

PACKAGE = "converter_client"
TIME_LIMIT_S = 60.0


async def generate(gateway: GatewayProcess, directory: Path) -> None:
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


async def test_it_posts_a_job_and_finds_it_again(
    gateway: GatewayProcess, form: Form, model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await generate(gateway, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    client_module, models, types = (
        importlib.import_module(f"{PACKAGE}.{name}") for name in ("client", "models", "types")
    )
    jobs = {
        name: importlib.import_module(f"{PACKAGE}.api.jobs.{name}") for name in ("create_job", "get_job", "list_jobs")
    }
    made = client_module.AuthenticatedClient(
        base_url=gateway.url, token=gateway.issuer.token(), httpx_args={"trust_env": False}
    )
    async with made as client:
        body = models.CreateJobJobForm(
            user_id=form.user_id,
            platform=models.CreateJobJobFormPlatform("720"),
            model_id=32769,
            version="0001",
            model=types.File(io.BytesIO(model), "digits.onnx", "application/octet-stream"),
        )
        created = await jobs["create_job"].asyncio_detailed(client=client, body=body)
        assert created.status_code == 201
        assert isinstance(created.parsed, models.JobResource)
        found = await jobs["get_job"].asyncio(client=client, job_id=created.parsed.job_id)
        assert found.model.filename == "digits.onnx"
        page = await jobs["list_jobs"].asyncio(client=client, user_id=form.user_id)
        assert [job.job_id for job in page.items] == [found.job_id]
        refused = await jobs["create_job"].asyncio_detailed(client=client, body=body)
        assert isinstance(refused.parsed, models.Error)
