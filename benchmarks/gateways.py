"""A gateway that is measured while things happen to jobs: its event bus is one that the row may write to, too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
from gateway_stack import access_token, gateway_stack

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.identifiers import uuid7
from converter.common.settings import NatsSettings
from converter.contracts.facts import JobCreated
from converter.contracts.job import JobRequest, Model, Options, Stage, timestamp
from converter.devstack.addresses import CLIENT_ID, FILE_STORE, ISSUER, OUTSIDE, S3
from converter.devstack.nats_server import NatsServer
from converter.devstack.stack import Stack


class Gateway(NamedTuple):
    """The gateway of a stack, and what a row needs to have something happen to it."""

    stack: Stack
    nats: NatsServer
    bus: Bus
    job_log: JobLog
    token: str

    @property
    def url(self) -> str:
        """Its public face."""
        return self.stack.gateway_urls[0]

    @property
    def internal_url(self) -> str:
        """Its internal face."""
        return self.stack.env["INTERNAL_URL"]

    @property
    def process(self) -> psutil.Process:
        """It."""
        return psutil.Process(self.stack.pids["api-gateway"])


@asynccontextmanager
async def gateway_alone(
    directory: Path, core: int, *, beside: Gateway | None = None, sync_interval: str = "always"
) -> AsyncIterator[Gateway]:
    """A gateway without workers, which serves.

    Args:
        directory: for all data.
        core: where it runs.
        beside: a gateway whose object storage, issuer and file store it uses as well.
        sync_interval: when its event bus flushes what it has stored.
    """
    nats = NatsServer(directory / "nats", sync_interval=sync_interval)
    await nats.start()
    replaced = (_servers_of(beside) if beside else {}) | {"NATS_URL": nats.url}
    try:
        async with (
            gateway_stack(directory, replaced=replaced, MAX_STREAMS_PER_CLIENT="100000") as stack,
            await Bus.connect(NatsSettings(nats_url=nats.url), name="benchmark") as bus,
        ):
            token = beside.token if beside else await access_token(stack)
            gateway = Gateway(stack, nats, bus, JobLog(bus, "benchmark"), token)
            gateway.process.cpu_affinity([core])
            yield gateway
    finally:
        await nats.kill()


def _servers_of(gateway: Gateway) -> dict[str, str]:
    variables = gateway.stack.variables
    return {name: variables[name] for server in (S3, ISSUER, FILE_STORE) for name in OUTSIDE[server]}


def cpu_s(process: psutil.Process) -> float:
    """User and system time so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def some_job(*, number: int = 0, client_id: str = CLIENT_ID, user_id: str = "user") -> JobCreated:
    """The creation of a job of one stage whose model nobody will look at."""
    job_id, now = uuid7(), timestamp()
    model = Model(
        filename=f"model-{number}.onnx", object_key=f"jobs/{job_id}/input/model.onnx", size_bytes=1, sha256="0" * 64
    )
    request = JobRequest(
        client_id=client_id,
        user_id=user_id,
        platform="720",
        model_id=40_000,
        version="0001",
        model=model,
        options=Options(last_stage=Stage.ONNX),
    )
    return JobCreated(at=now, job_id=job_id, request=request, expires_at=now)
