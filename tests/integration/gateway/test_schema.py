"""The gateway held against its own document: generated requests, good and bad, and chains of them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from converter.common.bus import Bus

from .conftest import Form, GatewayProcess, StartGateway
from .finished import finish, promoting

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIGURATION = Path(__file__).parent / "schemathesis.toml"
STRATEGIES = Path(__file__).parent / "schema_strategies.py"
TIME_LIMIT_S = 100.0
READ_BY_SCHEMATHESIS = "GET /openapi"
"""The document that it starts from is left out of a run; every other operation succeeds at least once."""
METHODS = {"get", "head", "post", "patch", "delete", "options"}
TUS = {"Tus-Resumable": "1.0.0"}


async def test_generated_requests_get_what_the_document_says_and_reach_every_operation(
    start_gateway: StartGateway, shared_bus: Bus, storage_dir: Path, model: bytes, tmp_path: Path
):
    gateway = await start_gateway(API_V1_RATE_LIMIT_MAX="1000000")
    async with gateway.client() as client:
        operations = operations_of((await client.get("/openapi")).json())
        finished = await posted(client, model)
        await finish(finished, shared_bus, storage_dir)
        examples = await examples_of(client, finished, shared_bus, storage_dir, model)
    assert examples.keys() <= operations
    async with promoting(finished, shared_bus):
        answers = await generated(gateway, examples, tmp_path)
    succeeded = {operation for status, _, operation in (answer.partition(" ") for answer in answers) if status < "300"}
    assert operations - succeeded == {READ_BY_SCHEMATHESIS}


async def generated(gateway: GatewayProcess, examples: dict[str, Any], directory: Path) -> list[str]:
    """Run schemathesis and tell its answers: `200 GET /health`."""
    given, answers = directory / "examples.json", directory / "answers"
    given.write_text(json.dumps(examples))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION)),
        *("run", f"{gateway.url}/openapi", "--header", f"Authorization: Bearer {gateway.issuer.token()}"),
        env=os.environ
        | {"SCHEMATHESIS_HOOKS": STRATEGIES.stem, "PYTHONPATH": str(STRATEGIES.parent)}
        | {"SCHEMA_EXAMPLES": str(given), "SCHEMA_ANSWERS": str(answers)},
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(TIME_LIMIT_S):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return answers.read_text().splitlines()


def operations_of(document: dict[str, Any]) -> set[str]:
    """By method and path: `GET /health`."""
    return {
        f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item if method in METHODS
    }


async def examples_of(
    client: httpx.AsyncClient, finished: str, bus: Bus, storage_dir: Path, model: bytes
) -> dict[str, Any]:
    """For each operation that needs something that is there, a request that names it; see `schema_strategies`."""
    removed, waiting = await posted(client, model), await posted(client, model)
    await finish(removed, bus, storage_dir)
    link = (await client.post(f"/api/v1/jobs/{finished}/download-tokens")).json()["url"]
    job, token = {"path_parameters": {"job_id": finished}}, {"path_parameters": {"token": link.rpartition("/")[2]}}
    upload, ended = [{"path_parameters": {"upload_id": await begun(client)}, "headers": TUS} for _ in range(2)]
    path = "/api/v1/jobs/{job_id}"
    order = {"media_type": "application/json"}
    piece = {"headers": TUS | {"Upload-Offset": "0"}, "media_type": "application/offset+octet-stream", "body": "12"}
    return {
        f"GET {path}": job,
        f"HEAD {path}": job,
        f"GET {path}/events": job,
        f"GET {path}/report": job,
        f"HEAD {path}/report": job,
        f"GET {path}/logs": job,
        f"POST {path}/download-tokens": job | order | {"body": {"source": "onnx"}},
        f"POST {path}/promote": job | order | {"body": {"target_object_key": "models/m.onnx"}},
        f"POST {path}/cancel": {"path_parameters": {"job_id": waiting}},
        f"DELETE {path}": {"path_parameters": {"job_id": removed}},
        "GET /api/v1/downloads/{token}": token,
        "HEAD /api/v1/downloads/{token}": token,
        "GET /api/v1/uploads/{upload_id}": upload,
        "HEAD /api/v1/uploads/{upload_id}": upload,
        "PATCH /api/v1/uploads/{upload_id}": upload | piece,
        "DELETE /api/v1/uploads/{upload_id}": ended,
    }


async def posted(client: httpx.AsyncClient, model: bytes) -> str:
    return str((await Form().post(client, model, targets="onnx")).json()["job_id"])


async def begun(client: httpx.AsyncClient) -> str:
    answer = await client.post("/api/v1/uploads", headers=TUS | {"Upload-Length": "10"})
    return str(answer.headers["location"]).rpartition("/")[2]


async def test_the_served_document_names_this_gateway_s_issuer_and_is_not_sent_twice(gateway: GatewayProcess):
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
        answer = await client.get("/openapi")
        assert answer.headers["content-type"] == "application/json"
        flow = json.loads(answer.content)["components"]["securitySchemes"]["member_center"]["flows"]
        assert flow["clientCredentials"]["tokenUrl"] == f"{gateway.issuer.url}/token"
        again = await client.get("/openapi", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


async def test_the_page_is_served_under_a_policy_that_allows_only_its_own_style(gateway: GatewayProcess):
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
        answer = await client.get("/openapi/docs")
        assert answer.headers["content-type"].startswith("text/html")
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
        internal = await client.get(f"{gateway.internal_url}/openapi/docs")
        assert internal.headers["content-security-policy"] == policy
        assert "/api/v1" not in internal.text
