"""The gateway held against its own document: generated requests, good and bad, and chains of them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import httpx
import pytest

from .conftest import GatewayProcess, StartGateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIGURATION = Path(__file__).parent / "schemathesis.toml"
STRATEGIES = Path(__file__).parent / "schema_strategies.py"
TIME_LIMIT_S = 100.0


async def test_generated_requests_get_what_the_document_says(start_gateway: StartGateway, tmp_path: Path):
    gateway = await start_gateway(API_V1_RATE_LIMIT_MAX="1000000")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION)),
        *("run", f"{gateway.url}/openapi", "--header", f"Authorization: Bearer {gateway.issuer.token()}"),
        env=os.environ | {"SCHEMATHESIS_HOOKS": STRATEGIES.stem, "PYTHONPATH": str(STRATEGIES.parent)},
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(TIME_LIMIT_S):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


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
        assert (await client.get(f"{gateway.internal_url}/openapi")).status_code == 404
