"""Where users are asserted, a request reaches its own user's jobs and nobody else's."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import pytest_asyncio

from converter.common.identifiers import uuid7
from converter.devstack.nats_server import NatsServer

from .conftest import Form, GatewayProcess, Issuer, StartGateway, module_fixture, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "a secret that is shared with the upstream"


def signed(user_id: str, *, at: float | None = None, secret: str = SECRET) -> str:
    text = f"{user_id}:{int(time.time() if at is None else at)}"
    return f"{text}:{hmac.digest(secret.encode(), text.encode(), hashlib.sha256).hex()}"


class Asserting(NamedTuple):
    """A gateway that wants a proof, and how a user gives it."""

    gateway: GatewayProcess
    claims: Callable[[str], dict[str, str]]
    headers: Callable[[str], dict[str, str]]

    @asynccontextmanager
    async def user(self, user_id: str) -> AsyncIterator[httpx.AsyncClient]:
        async with self.gateway.client(**self.claims(user_id)) as client:
            client.headers.update(self.headers(user_id))
            yield client


HOW: dict[str, tuple[Callable[[str], dict[str, str]], Callable[[str], dict[str, str]]]] = {
    "token": (lambda user_id: {"user_id": user_id}, lambda _: {}),
    "hmac": (lambda _: {}, lambda user_id: {"X-User-Assertion": signed(user_id)}),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=HOW)
async def asserting(
    request: pytest.FixtureRequest,
    nats: NatsServer,
    shared_issuer: Issuer,
    storage_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Asserting]:
    variables = {"USER_ASSERTION": request.param} | (
        {"USER_ASSERTION_SECRET": SECRET} if request.param == "hmac" else {}
    )
    directory = tmp_path_factory.mktemp("asserting")
    async with running(nats, shared_issuer, storage_dir, directory, **variables) as gateway:
        yield Asserting(gateway, *HOW[request.param])


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_nobody_posts_or_lists_for_another_user(asserting: Asserting, form: Form, model: bytes):
    stranger = f"user-{uuid7()}"
    async with asserting.user(stranger) as client:
        for order in (
            await form.post(client, model),
            await client.post("/api/v1/jobs?dry_run=true", data=form.fields(), files={"model": ("m.onnx", model)}),
            await client.post("/api/v1/jobs?dry_run=true", data=form.fields(), files={"model": ("m.onnx", b"none")}),
            await client.get("/api/v1/jobs", params={"user_id": form.user_id}),
        ):
            assert refused(order) == (403, "user_mismatch"), order.text
            assert "www-authenticate" in order.headers
        assert (await client.get("/api/v1/jobs", params={"user_id": stranger})).json()["items"] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("HEAD", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("POST", "/promote"),
        ("POST", "/download-tokens"),
        ("GET", "/events"),
        ("GET", "/report"),
        ("GET", "/logs"),
        ("GET", "/logs?follow=true"),
    ],
)
async def test_another_users_job_looks_like_none(
    asserting: Asserting, form: Form, model: bytes, method: str, path: str
):
    async with asserting.user(form.user_id) as owner, asserting.user("somebody-else") as other:
        posted = await form.post(owner, model)
        assert posted.status_code == 201, posted.text
        job_id = posted.json()["job_id"]
        assert (await owner.get(f"/api/v1/jobs/{job_id}")).json()["status"] == "queued"
        body = {"target_object_key": "a"} if path == "/promote" else None
        foreign, absent = [
            await other.request(method, f"/api/v1/jobs/{id_}{path}", json=body, headers={"X-Request-Id": "same"})
            for id_ in (job_id, uuid7())
        ]
        assert (foreign.status_code, foreign.content) == (absent.status_code, absent.content)
        assert foreign.status_code == 404
        assert (await owner.get(f"/api/v1/jobs/{job_id}")).json()["status"] == "queued"


async def test_a_key_of_another_user_gives_nothing_away(asserting: Asserting, form: Form, model: bytes):
    key = {"Idempotency-Key": uuid7()}
    async with asserting.user(form.user_id) as owner, asserting.user("somebody-else") as other:

        async def post(client: httpx.AsyncClient, model: bytes, key: dict[str, str]) -> httpx.Response:
            return await client.post(
                "/api/v1/jobs", data=form.fields(), files={"model": ("m.onnx", model)}, headers=key
            )

        for _ in range(2):
            assert (await post(owner, model, key)).status_code == 201
        for sent, named in ((model, key), (b"another", key), (model, {"Idempotency-Key": uuid7()})):
            assert refused(await post(other, sent, named)) == (403, "user_mismatch")


FORGED: dict[str, Callable[[], list[str]]] = {
    "none": list,
    "empty": lambda: [""],
    "unsigned": lambda: ["alice"],
    "of another user": lambda: [signed("alice").replace("alice", "bob")],
    "by another secret": lambda: [signed("alice", secret="another secret that is not shared")],
    "cut short": lambda: [signed("alice")[:-1]],
    "in capitals": lambda: [signed("alice").upper()],
    "with more behind it": lambda: [signed("alice") + ","],
    "with a guess": lambda: [f"alice:{int(time.time())}:{'0' * 64}"],
    "old": lambda: [signed("alice", at=time.time() - 62)],
    "early": lambda: [signed("alice", at=time.time() + 62)],
    "twice": lambda: [signed("alice")] * 2,
}


@pytest.mark.parametrize("forged", FORGED)
async def test_what_is_not_signed_now_by_the_upstream_is_refused(signing: GatewayProcess, forged: str):
    headers = [("X-User-Assertion", assertion) for assertion in FORGED[forged]()]
    async with signing.client() as client:
        answer = await client.get("/api/v1/jobs", params={"user_id": "alice"}, headers=headers)
        assert refused(answer) == (403, "user_assertion_invalid")
        fine = await client.get(
            "/api/v1/jobs", params={"user_id": "alice"}, headers={"X-User-Assertion": signed("alice")}
        )
        assert fine.status_code == 200


@module_fixture
async def signing(
    nats: NatsServer, shared_issuer: Issuer, storage_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    variables = {"USER_ASSERTION": "hmac", "USER_ASSERTION_SECRET": SECRET}
    async with running(nats, shared_issuer, storage_dir, tmp_path_factory.mktemp("hmac"), **variables) as gateway:
        yield gateway


async def test_a_token_names_its_user_by_user_id_or_else_by_sub(start_gateway: StartGateway):
    gateway = await start_gateway(USER_ASSERTION="token")
    for claims, status in (
        ({"sub": "alice"}, 200),
        ({"sub": "bob"}, 403),
        ({"sub": "alice", "user_id": "bob"}, 403),
        ({"sub": "bob", "user_id": "alice"}, 200),
        ({"sub": None}, 401),
        ({"sub": "alice", "user_id": 7}, 401),
    ):
        async with gateway.client(**claims) as client:
            assert (await client.get("/api/v1/jobs", params={"user_id": "alice"})).status_code == status, claims


async def test_without_an_assertion_the_upstream_is_believed(gateway: GatewayProcess):
    async with gateway.client(sub="bob", user_id=7) as client:
        headers = {"X-User-Assertion": "nonsense"}
        assert (await client.get("/api/v1/jobs", params={"user_id": "a"}, headers=headers)).status_code == 200
