"""Tokens of an OpenID provider that the OpenID Foundation has certified, npm's oidc-provider, are what we take."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from converter.common.oauth import token_source
from converter.common.settings import OAuthClientSettings, Secret
from converter.devstack.loopback import free_ports, http_status, origin
from converter.devstack.process import Program, wheel_program

from .conftest import AUDIENCE, GatewayProcess, StartGateway, function_fixture

pytestmark = pytest.mark.asyncio(loop_scope="module")

NODE = Path(__file__).parents[2] / "node"
SCOPES = "converter:job.read converter:job.write"
ALGORITHMS = ("RS256", "ES256", "EdDSA")


class Provider:
    """The certified issuer as a process; `rotate` restarts it with new keys beside the old ones."""

    def __init__(self, program: Program, url: str) -> None:
        self.program, self.url = program, url

    async def token(self, algorithm: str) -> str:
        settings = OAuthClientSettings(
            member_center_token_url=f"{self.url}/token",
            kneron_converter_client_id=algorithm,
            kneron_converter_client_secret=Secret("secret"),
            file_access_agent_audience=AUDIENCE,
        )
        async with token_source(settings, scope=SCOPES) as tokens:
            return await tokens.token()

    async def rotate(self) -> None:
        await self.program.stop()
        self.program.extra_environ = {"ROTATE": "1"}
        await self.program.start()


@asynccontextmanager
async def provider_in(directory: Path) -> AsyncIterator[Provider]:
    (port,) = free_ports(1)
    url = origin(port)

    async def ready(_: int) -> bool:
        return await http_status(f"{url}/jwks") == httpx.codes.OK

    environ = {"PORT": str(port), "KEYS": str(directory / "keys.json"), "AUDIENCE": AUDIENCE, "SCOPES": SCOPES}
    program = Program(
        "oidc-provider",
        [wheel_program("node"), str(NODE / "issuer.mjs")],
        environ=os.environ | environ,
        log=directory / "oidc-provider.log",
        ready=ready,
    )
    await program.start()
    try:
        yield Provider(program, url)
    finally:
        await program.stop()


@function_fixture
async def provider(tmp_path: Path) -> AsyncIterator[Provider]:
    async with provider_in(tmp_path) as started:
        yield started


@function_fixture
async def trusting(start_gateway: StartGateway, provider: Provider) -> GatewayProcess:
    """A gateway that takes this issuer's access tokens, and only such as RFC 9068 describes."""
    return await start_gateway(
        MEMBER_CENTER_ISSUER=provider.url,
        MEMBER_CENTER_JWKS_URL=f"{provider.url}/jwks",
        JWKS_COOLDOWN_MS="100",
        JWT_TYP="at+jwt",
    )


async def answered(gateway: GatewayProcess, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False) as client:
        return (await client.get("/api/v1/jobs", params={"user_id": "a"})).status_code


async def test_its_tokens_are_taken_whatever_signs_them(trusting: GatewayProcess, provider: Provider):
    assert [await answered(trusting, await provider.token(algorithm)) for algorithm in ALGORITHMS] == [200] * 3


async def test_keys_are_rotated_without_a_401(trusting: GatewayProcess, provider: Provider):
    old = {algorithm: await provider.token(algorithm) for algorithm in ALGORITHMS}
    assert await answered(trusting, old["RS256"]) == 200
    await provider.rotate()
    new = {algorithm: await provider.token(algorithm) for algorithm in ALGORITHMS}
    for algorithm in ALGORITHMS:
        assert old[algorithm].partition(".")[0] != new[algorithm].partition(".")[0]
        assert [await answered(trusting, token) for token in (new[algorithm], old[algorithm])] == [200, 200]


async def test_while_it_is_down_its_keys_still_serve(trusting: GatewayProcess, provider: Provider):
    seen, unseen = await provider.token("ES256"), await provider.token("ES256")
    assert await answered(trusting, seen) == 200
    await provider.program.kill()
    assert [await answered(trusting, token) for token in (seen, unseen)] == [200, 200]
