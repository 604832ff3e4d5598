"""The whole system, as the development stack starts it, for tests that speak HTTP to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import httpx
import pytest
import pytest_asyncio
from digits import Digits
from stored_reports import check_stored_reports
from upstream import Upstream, fetch_token

from converter.devstack.addresses import SCOPES
from converter.devstack.stack import Stack

SETTINGS = {"API_V1_RATE_LIMIT_MAX": "1000000", "STAGE_ACK_WAIT_S": "1.5", "CLAIM_GRACE_S": "2"}
"""A worker that is silent for 1.5 s has lost its message, so that a test need not wait for long."""


@pytest.fixture(scope="module")
def workers() -> Mapping[str, int]:
    """How many processes of each service; a module overrides it."""
    return {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory, workers: Mapping[str, int]) -> AsyncIterator[Stack]:
    async with Stack(tmp_path_factory.mktemp("stack"), workers=workers, settings=SETTINGS) as running:
        yield running
        await check_stored_reports(running)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=60, limits=httpx.Limits(max_connections=200)) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def token(stack: Stack, http: httpx.AsyncClient) -> str:
    return await fetch_token(http, stack.env, scope=" ".join(SCOPES))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream(stack: Stack, http: httpx.AsyncClient, token: str) -> Upstream:
    return Upstream(http, stack.env["GATEWAY_URL"], token)


@pytest.fixture
def digits(upstream: Upstream) -> Digits:
    return Digits(upstream)
