"""An authenticated GET of one job against a bare Litestar JSON handler without authentication.

    apt-get install wrk
    python benchmarks/http_get.py [--rounds 5] [--seconds 4] [--connections 32]

The server has one core, wrk and NATS the other; the rounds alternate. What counts is requests per second of the
server's CPU time, which moves less with the machine's load than the wall clock does. CPU time of NATS is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import socket
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import psutil
from litestar import Litestar, get
from uploads import AUDIENCE, Issuer

from converter.common.bus import Bus
from converter.common.provision import provision
from converter.common.settings import NatsSettings
from converter.common.topology import Tuning
from converter.devstack.demo import DATA
from converter.devstack.nats_server import NatsServer
from converter.devstack.process import die_with

SERVER_CORE, OTHER_CORE = 0, 1
START_TIMEOUT_S = 20.0


@get("/")
async def status() -> dict[str, str]:
    """The least that is JSON."""
    return {"status": "ok"}


bare = Litestar([status], openapi_config=None)


class Server:
    """A server under load."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.url, self._process = url, psutil.Process(process.pid)

    def cpu_s(self) -> float:
        """User and system time so far."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    async def measure(self, wrk: str, path: str, token: str, given: argparse.Namespace) -> float:
        """Requests per second of CPU time.

        Raises:
            SystemExit: not every answer was a success.
        """
        before = self.cpu_s()
        load = await asyncio.create_subprocess_exec(
            *(wrk, "-t1", f"-c{given.connections}", f"-d{given.seconds}s"),
            *("-H", f"Authorization: Bearer {token}", f"{self.url}{path}"),
            stdout=asyncio.subprocess.PIPE,
        )
        said = (await load.communicate())[0].decode()
        spent_s = self.cpu_s() - before
        found = re.search(r"(\d+) requests in", said)
        if load.returncode or not found or "Non-2xx" in said or "Socket errors" in said:
            raise SystemExit(said)
        return int(found[1]) / spent_s


@asynccontextmanager
async def serving(port: int, *arguments: str, **variables: str) -> AsyncIterator[Server]:
    """A process that answers on `port`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        env=os.environ | variables,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        preexec_fn=partial(_alone, os.getpid()),
    )
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            await _answering(port)
        yield Server(process, f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        await process.wait()


async def _answering(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


def _alone(parent: int) -> None:
    die_with(parent)
    os.sched_setaffinity(0, {SERVER_CORE})


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def gateway(port: int, nats: NatsServer, issuer: Issuer, directory: Path) -> dict[str, str]:
    """Its variables."""
    return {
        "NATS_URL": nats.url,
        "STORAGE_BACKEND": "local",
        "LOCAL_STORAGE_DIR": str(directory),
        "MEMBER_CENTER_ISSUER": issuer.url,
        "MEMBER_CENTER_JWKS_URL": issuer.url,
        "MEMBER_CENTER_TOKEN_URL": issuer.url,
        "KNERON_CONVERTER_AUDIENCE": AUDIENCE,
        "KNERON_CONVERTER_CLIENT_ID": "converter",
        "KNERON_CONVERTER_CLIENT_SECRET": "secret",
        "FILE_ACCESS_AGENT_BASE_URL": issuer.url,
        "FILE_ACCESS_AGENT_AUDIENCE": "files",
        "API_V1_RATE_LIMIT_MAX": "1000000000",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "INTERNAL_PORT": "0",
    }


async def posted(url: str, token: str) -> str:
    """The path of a new job."""
    fields = {"user_id": "bench", "platform": "720", "model_id": "32769", "version": "0001"}
    model = (DATA / "digits_cnn.onnx").read_bytes()
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        headers = {"Authorization": f"Bearer {token}"}
        answer = await client.post("/api/v1/jobs", data=fields, files={"model": ("m.onnx", model)}, headers=headers)
    return f"/api/v1/jobs/{answer.raise_for_status().json()['job_id']}"


async def compare(nats: NatsServer, issuer: Issuer, directory: Path, wrk: str, given: argparse.Namespace) -> None:
    """All rounds, and what came of them, printed."""
    ports, token = (_free_port(), _free_port()), issuer.token()
    bench = ("uvicorn", "--app-dir", str(Path(__file__).parent), "--no-access-log", "--port", str(ports[1]))
    rates: dict[str, list[float]] = {"gateway": [], "bare": []}
    async with (
        serving(ports[0], "converter.gateway", **gateway(ports[0], nats, issuer, directory)) as ours,
        serving(ports[1], *bench, "http_get:bare") as theirs,
    ):
        job = await posted(ours.url, token)
        for _ in range(given.rounds):
            rates["gateway"].append(await ours.measure(wrk, job, token, given))
            rates["bare"].append(await theirs.measure(wrk, "/", token, given))
    medians = {name: statistics.median(measured) for name, measured in rates.items()}
    for name, measured in rates.items():
        rounds = ", ".join(f"{rate:.0f}" for rate in measured)
        sys.stdout.write(f"{name}: {medians[name]:.0f} requests per CPU second (median of {rounds})\n")
    sys.stdout.write(f"ratio: {medians['gateway'] / medians['bare']:.2f}\n")


async def main() -> None:
    """Start what is needed, measure, stop it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=4, help="of each round and server")
    arguments.add_argument("--connections", type=int, default=32)
    given = arguments.parse_args()
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    os.sched_setaffinity(0, {OTHER_CORE})
    with tempfile.TemporaryDirectory() as directory:
        nats, issuer = NatsServer(Path(directory) / "nats"), Issuer()
        await nats.start()
        async with await Bus.connect(NatsSettings(nats_url=nats.url), name="provisioner") as bus:
            await provision(bus, Tuning())
        try:
            async with await issuer.start():
                await compare(nats, issuer, Path(directory), wrk, given)
        finally:
            await nats.kill()


if __name__ == "__main__":
    asyncio.run(main())
