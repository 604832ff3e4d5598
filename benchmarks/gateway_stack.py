"""What the rows that measure the gateway's HTTP start: the stack without workers, and other servers of HTTP."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from converter.common.bus import Bus
from converter.common.nats_users import NatsUsers
from converter.common.settings import NatsSettings
from converter.common.topology import stage_durable
from converter.contracts.job import Stage
from converter.devstack.loopback import HOST, free_ports, http_status, origin
from converter.devstack.process import Program
from converter.devstack.services import JOB_WORKERS
from converter.devstack.stack import Stack

FIELDS = {"platform": "720", "model_id": "32769", "version": "0001"}
"""Of a job, all but its user and its files."""


@asynccontextmanager
async def gateway_stack(
    directory: Path, *, replaced: Mapping[str, str] | None = None, **settings: str
) -> AsyncIterator[Stack]:
    """A stack in `directory` whose jobs stay queued; nobody is kept from asking often. `replaced`: see `Stack`."""
    unlimited = {"API_V1_RATE_LIMIT_MAX": "1000000000"}
    nobody = {service.short: 0 for service in JOB_WORKERS}
    async with Stack(directory / "stack", workers=nobody, settings=unlimited | settings, replaced=replaced) as stack:
        yield stack


@contextmanager
def on_other_cores() -> Iterator[int]:
    """Keep this process, and what it starts, off one core: that one."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[1:] or cores)
    try:
        yield cores[0]
    finally:
        os.sched_setaffinity(0, cores)


@asynccontextmanager
async def served(
    directory: Path, python: Path, app: str, home: Path, variables: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[int, str]]:
    """The process of an ASGI application under uvicorn, and its address."""
    port = free_ports(1)[0]
    url = f"{origin(port)}/"

    async def ready(_: int) -> bool:
        return await http_status(url) is not None

    served = Program(
        app,
        [str(python), "-m", "uvicorn", "--no-access-log", "--host", HOST, "--port", str(port), app],
        environ=os.environ | dict(variables or {}),
        log=directory / f"{app}.log",
        ready=ready,
        directory=home,
    )
    await served.start()
    try:
        yield served.pid, url
    finally:
        await served.kill()


async def access_token(stack: Stack) -> str:
    """One that may read and write jobs."""
    env = stack.env
    form = {"grant_type": "client_credentials", "audience": env["AUDIENCE"]}
    auth = aiohttp.BasicAuth(env["CLIENT_ID"], env["CLIENT_SECRET"])
    async with aiohttp.ClientSession() as session, session.post(env["TOKEN_URL"], data=form, auth=auth) as answer:
        return str((await good(answer))["access_token"])


@asynccontextmanager
async def stage_onnx(stack: Stack) -> AsyncIterator[Bus]:
    """The event bus as the workers of the first stage see it."""
    name = stage_durable(Stage.ONNX)
    seed_file = NatsUsers(stack.directory / "nats-users").seed_files[name]
    settings = NatsSettings(nats_url=stack.variables["NATS_URL"], nats_nkey_seed_file=seed_file)
    async with await Bus.connect(settings, name=name) as bus:
        yield bus


async def good(answer: aiohttp.ClientResponse) -> Any:  # noqa: ANN401 - JSON
    """The JSON of an answer.

    Raises:
        SystemExit: it is a refusal; nothing that is measured after it would mean anything.
    """
    if not answer.ok:
        raise SystemExit(f"{answer.method} {answer.url.path}: {answer.status} {await answer.text()}")
    return await answer.json()
