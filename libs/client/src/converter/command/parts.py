"""The parts of a deployment, each asked what an operator wants to know of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
from msgspec import Struct

from converter.client import AsyncClient
from converter.common.access import OPERATOR
from converter.common.bus import Bus, BusRefused
from converter.common.settings import NatsSettings, Secret, StorageSettings
from converter.common.storage import open_store
from converter.common.topology import PROMOTER, Tuning, consumers, stage_durable, streams
from converter.common.workers import alive
from converter.contracts.job import STAGES

Facts = AsyncGenerator["Fact", None]
_SERVER_ERRORS = 500
_WORKERS = (*map(stage_durable, STAGES), PROMOTER)
_PROVISION = "Run the provisioner: python -m converter.common.provision"


class Fact(Struct, frozen=True):
    """Something found; where it is wrong, what to `do` about it."""

    found: str
    do: str = ""


class NotGiven(Exception):
    """The variables `names` are not set, so that there is nothing to look at."""

    def __init__(self, *names: str) -> None:
        super().__init__(f"{', '.join(names)} not set")


async def gateway(client: AsyncClient) -> Facts:
    """What the gateway says of itself, of what it needs and of the workers."""
    health = await client.health()
    yield Fact(health.status, "Its log says why." if health.status == "unhealthy" else "")
    for name, server in health.dependencies.items():
        if server.status == "up":
            yield Fact(f"reaches {name}")
        else:
            yield Fact(f"does not reach {name}: {server.error}", f"Start {name}, or correct its address there.")
    for stage, work in health.stages.items():
        workers = f"{work.workers} worker{'' if work.workers == 1 else 's'}"
        told = f"stage {stage}: {workers}, {work.queue_depth} waiting, {work.in_progress} in progress"
        yield Fact(told, "" if work.workers else f"Start a worker: python -m converter.stage_{stage}")


async def token(client: AsyncClient, user_id: str) -> Facts:
    """Whether the issuer gives a token that the gateway takes."""
    await anext(client.jobs(user_id), None)
    yield Fact("the issuer gives one, and the gateway takes it")


async def issuer_keys(variables: Mapping[str, str]) -> Facts:
    """Whether there are keys to check tokens with."""
    (url,) = _given(variables, "MEMBER_CENTER_JWKS_URL")
    async with httpx.AsyncClient() as http:
        answer = await http.get(url)
    if not answer.is_success:
        yield Fact(f"{url} answers HTTP {answer.status_code}", "Correct MEMBER_CENTER_JWKS_URL.")
        return
    keys = msgspec.json.decode(answer.content, type=dict[str, list[dict[str, Any]]])["keys"]
    algorithms = sorted({str(key.get("alg", key.get("kty"))) for key in keys})
    yield Fact(f"{len(keys)} ({', '.join(algorithms)})", "" if keys else "Give the issuer a signing key.")


async def event_bus(variables: Mapping[str, str]) -> Facts:
    """Whether NATS answers, holds what it should, and knows workers. Needs the rights of the NATS user `operator`."""
    url, seed = _given(variables, "NATS_URL", "NATS_NKEY_SEED_FILE")
    authority = variables.get("NATS_CA_FILE")
    settings = NatsSettings(
        nats_url=url, nats_nkey_seed_file=Path(seed), nats_ca_file=Path(authority) if authority else None
    )
    async with await Bus.connect(settings, name=OPERATOR) as bus:
        yield Fact(f"answers within {await bus.round_trip() * 1000:.1f} ms")
        for what, verbs in (
            ("streams", [f"STREAM.INFO.{stream['name']}" for stream in streams(Tuning())]),
            ("consumers", [f"CONSUMER.INFO.{stream}.{each['durable_name']}" for stream, each in consumers(Tuning())]),
        ):
            missing = [why async for why in _missing(bus, verbs)]
            yield Fact("; ".join(missing) or f"all {len(verbs)} {what} are there", _PROVISION if missing else "")
        found = Counter(worker.service for worker in await alive(bus))
        for service in _WORKERS:
            idle = f"Start a worker: python -m converter.{service.replace('-', '_')}"
            yield Fact(f"{service}: {found[service]} at work", "" if found[service] else idle)


async def _missing(bus: Bus, verbs: list[str]) -> AsyncGenerator[str, None]:
    for verb in verbs:
        try:
            await bus.api(verb)
        except BusRefused as refused:
            yield str(refused)


async def object_storage(variables: Mapping[str, str]) -> Facts:
    """Whether something can be written, read and deleted."""
    url, bucket, access, secret = _given(
        variables, "MINIO_ENDPOINT_URL", "MINIO_BUCKET", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"
    )
    settings = StorageSettings(
        storage_backend="minio",
        minio_endpoint_url=url,
        minio_bucket=bucket,
        minio_access_key=Secret(access),
        minio_secret_key=Secret(secret),
    )
    async with open_store(settings) as store:
        yield Fact(f"written, read and deleted within {await store.probe() * 1000:.0f} ms")


async def file_store(variables: Mapping[str, str]) -> Facts:
    """Whether it answers; a refusal is an answer, as only the promoter has a token for it."""
    (url,) = _given(variables, "FILE_ACCESS_AGENT_BASE_URL")
    async with httpx.AsyncClient() as http:
        status = (await http.get(url)).status_code
    yield Fact(f"answers HTTP {status}", "Its log says why." if status >= _SERVER_ERRORS else "")


def _given(variables: Mapping[str, str], *names: str) -> list[str]:
    if missing := [name for name in names if not variables.get(name)]:
        raise NotGiven(*missing)
    return [variables[name] for name in names]
