"""`GET /api/v1/jobs/{job_id}` with a bearer token, asked again and again by `wrk` over 32 connections.

Beside it a bare Litestar handler that answers `{"status": "ok"}` to anybody, and a FastAPI handler that verifies the
same token with PyJWT at each request, each under uvicorn with uvloop and httptools. The server that is asked has a core
to itself; the load, the other servers and NATS have the rest. Requests per second of the server's CPU time count, which
move less with what else the machine does than those by the clock. Any answer but a success ends the row.

The gateway checks the token (its signature once for as long as it is good), counts the request against the client's
limit, looks at its copy of the job, sets 22 headers and writes a line of its log. The bare handler does none of that.
CPU time of NATS is not counted: it is asked four times a second, however many requests there are.

The ratio depends on the machine: one build had 0.69 on this and 0.82 (0.73 to 0.92) on another that calls its processor
the same and does half as many requests again on either side. What the gateway does beside the bare handler is spread
thinly: by py-spy no function has more than a few per cent.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import aiohttp
import psutil
from gateway_stack import FIELDS, access_token, gateway_stack, good, on_other_cores, served
from gateways import cpu_s
from harness import Row, Side, Target
from peer_environment import installed

from converter.devstack.demo import DATA
from converter.devstack.stack import Stack

GATEWAY, BARE, FASTAPI = "gateway", "bare Litestar", "FastAPI with PyJWT"
PER_CPU_SECOND, PER_SECOND = "requests per CPU second", "requests/s"
SECONDS, CONNECTIONS = 4, 32


@contextlib.asynccontextmanager
async def sides(directory: Path) -> AsyncIterator[Sequence[Side]]:
    """The three servers, on a core that they share in turns."""
    with on_other_cores() as core:
        async with (
            gateway_stack(directory) as stack,
            served(directory, Path(sys.executable), "bare_litestar:app", Path(__file__).parent.parent) as bare,
            _fastapi(directory, stack) as fastapi,
        ):
            token = await access_token(stack)
            gateway = stack.env["GATEWAY_URL"]
            asked = {
                GATEWAY: (stack.pids["api-gateway"], gateway + await _posted(gateway, token)),
                BARE: bare,
                FASTAPI: fastapi,
            }
            for pid, _ in asked.values():
                psutil.Process(pid).cpu_affinity([core])
            yield [Side(name, partial(_loaded, *server, token)) for name, server in asked.items()]


async def _posted(gateway: str, token: str) -> str:
    """The path of a new job."""
    form = aiohttp.FormData({"user_id": "bench", **FIELDS})
    form.add_field("model", (DATA / "digits_cnn.onnx").read_bytes(), filename="m.onnx")
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(gateway) as session,
        session.post("/api/v1/jobs", data=form, headers=headers) as answer,
    ):
        return f"/api/v1/jobs/{(await good(answer))['job_id']}"


@contextlib.asynccontextmanager
async def _fastapi(directory: Path, stack: Stack) -> AsyncIterator[tuple[int, str]]:
    home = await asyncio.to_thread(installed, "fastapi")
    variables = {
        "ISSUER": stack.variables["MEMBER_CENTER_ISSUER"],
        "JWKS_URL": stack.env["JWKS_URL"],
        "AUDIENCE": stack.env["AUDIENCE"],
    }
    async with served(directory, home / ".venv" / "bin" / "python", "app:app", home, variables) as fastapi:
        yield fastapi


async def _loaded(pid: int, url: str, token: str) -> Mapping[str, float]:
    """One round.

    Raises:
        SystemExit: not every answer was a success.
    """
    server = psutil.Process(pid)
    spent_s, began = cpu_s(server), time.monotonic()
    load = await asyncio.create_subprocess_exec(
        *("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-H", f"Authorization: Bearer {token}", url),
        stdout=asyncio.subprocess.PIPE,
    )
    said = (await load.communicate())[0].decode()
    spent_s, took_s = cpu_s(server) - spent_s, time.monotonic() - began
    found = re.search(r"(\d+) requests in", said)
    if load.returncode or not found or "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(said)
    return {PER_CPU_SECOND: int(found[1]) / spent_s, PER_SECOND: int(found[1]) / took_s}


ROW = Row(
    name="http_get",
    title="An authenticated look at one job",
    text=__doc__ or "",
    sides=sides,
    targets=(
        Target(PER_CPU_SECOND, GATEWAY, BARE, at_least=0.8),
        Target(PER_CPU_SECOND, GATEWAY, FASTAPI, at_least=1.5),
    ),
)
