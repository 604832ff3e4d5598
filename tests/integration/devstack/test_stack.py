from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil
import pytest
from waiting import eventually

from converter.devstack.nats_server import NatsServer
from converter.devstack.process import PartFailed
from converter.devstack.stack import AlreadyRunning, Stack

from .leftovers import family, left_of, listening_addresses, served, still_running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("cold_starts")]

MAKEFILE = Path(__file__).parents[3] / "Makefile"
START_S = 60
NAMES = {
    "nats-server",
    "seaweedfs",
    "issuer",
    "file-store",
    "api-gateway",
    "stage-onnx",
    "stage-bie",
    "stage-nef",
    "promoter",
}


def read_env(directory: Path) -> dict[str, str]:
    lines = (directory / "stack.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def pids(env: dict[str, str]) -> dict[str, int]:
    return {name: int(pid) for name, pid in (pair.split("=") for pair in env["PIDS"].split(","))}


@contextlib.asynccontextmanager
async def up(directory: Path, *arguments: str, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`make up`, once it serves."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "converter.devstack", "--directory", str(directory), "up", *arguments),
        env=os.environ | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )

    async def ready() -> bool:
        if process.returncode is not None:
            assert process.stdout
            pytest.fail((await process.stdout.read()).decode())
        return (directory / "stack.env").exists()

    try:
        await eventually(ready, within_s=START_S)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_up_serves_everything_keeps_it_alive_and_takes_it_down(tmp_path: Path, http: httpx.AsyncClient):
    async with up(tmp_path, "--workers", "bie=2") as process:
        env = read_env(tmp_path)
        assert (tmp_path / "stack.env").stat().st_mode & 0o777 == 0o600
        assert set(pids(env)) == NAMES - {"stage-bie"} | {"stage-bie.1", "stage-bie.2"}
        assert all(psutil.pid_exists(pid) for pid in pids(env).values())
        assert listening_addresses(process.pid) == {"127.0.0.1"}
        for client in ("CLIENT", "CLIENT2"):
            proof = (env[f"{client}_ID"], env[f"{client}_SECRET"])
            form = {"grant_type": "client_credentials", "audience": env["AUDIENCE"]}
            token = (await http.post(env["TOKEN_URL"], data=form, auth=proof)).json()["access_token"]
            jobs = await http.get(
                f"{env['GATEWAY_URL']}/api/v1/jobs?user_id=alice", headers={"Authorization": f"Bearer {token}"}
            )
            assert (jobs.status_code, jobs.json()["items"]) == (200, [])
        assert (await http.get(f"{env['INTERNAL_URL']}/health")).status_code == 200

        killed = pids(env)["stage-bie.2"]
        os.kill(killed, signal.SIGKILL)

        async def replaced() -> bool:
            return pids(read_env(tmp_path)).get("stage-bie.2", killed) != killed

        await eventually(replaced, within_s=START_S)

        relatives = family(process.pid)
        os.kill(pids(env)["seaweedfs"], signal.SIGSTOP)
        process.terminate()
        assert await process.wait() == 0
        assert left_of(tmp_path) + still_running(relatives) == []
        assert await served(env) == []
        assert not (tmp_path / "stack.env").exists()
        assert all((tmp_path / "logs" / f"{name}.log").stat().st_size for name in pids(env))


async def test_a_killed_stack_leaves_no_process_and_spares_the_server_that_is_not_its_own(tmp_path: Path):
    outside_server = NatsServer(tmp_path / "outside")
    await outside_server.start()
    directory = tmp_path / "stack"
    async with up(directory, NATS_URL=outside_server.url) as process:
        env = read_env(directory)
        assert env["NATS_URL"] == outside_server.url
        assert set(pids(env)) == NAMES - {"nats-server"}

        relatives = family(process.pid)
        process.kill()

        async def all_gone() -> bool:
            return left_of(directory) + still_running(relatives) == []

        await eventually(all_gone)
        assert await served(env) == ["NATS_URL"]
    await outside_server.kill()


async def test_a_part_that_does_not_come_up_is_named_with_the_end_of_its_log(tmp_path: Path):
    with pytest.raises(PartFailed) as failed:
        async with Stack(tmp_path, settings={"MULTIPART_MODEL_MAX_BYTES": "plenty"}):
            pass

    assert failed.value.name == "api-gateway"
    assert "exit code 1" in failed.value.why
    assert "MULTIPART_MODEL_MAX_BYTES" in failed.value.tail
    assert left_of(tmp_path) == []


async def clean(checkout: Path) -> tuple[int | None, str]:
    """`make clean` there: its exit code, and what it complains of."""
    process = await asyncio.create_subprocess_exec(
        *("make", "-f", str(MAKEFILE), "clean"), cwd=checkout, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    return process.returncode, said.decode()


async def test_tests_can_kill_freeze_and_start_parts_and_nobody_takes_the_data(tmp_path: Path, http: httpx.AsyncClient):
    directory = tmp_path / ".dev"
    async with Stack(directory, workers={"gateway": 2}) as stack:
        before = stack.pids
        assert set(before) == NAMES - {"api-gateway"} | {"api-gateway.1", "api-gateway.2"}
        with pytest.raises(AlreadyRunning):
            async with Stack(directory):
                pass
        code, said = await clean(tmp_path)
        assert (code, "a stack runs in .dev" in said, (directory / "stack.env").exists()) == (2, True, True), said

        assert len(stack.gateway_urls) == 2
        await stack.kill("stage-nef")
        assert "stage-nef" not in stack.pids
        assert not psutil.pid_exists(before["stage-nef"])
        await stack.start("stage-nef", env={"STAGE_CONCURRENCY": "2"})
        assert psutil.Process(stack.pids["stage-nef"]).environ()["STAGE_CONCURRENCY"] == "2"

        for server in ("nats-server", "seaweedfs", "file-store"):
            await stack.kill(server)
            await stack.start(server)

        async def healthy() -> bool:
            answers = [await http.get(f"{url}/health/ready") for url in stack.gateway_urls]
            return all(answer.status_code == 200 for answer in answers)

        await eventually(healthy, within_s=START_S)
        env, relatives = stack.env, [relative for pid in stack.pids.values() for relative in family(pid)]
    assert left_of(directory) + still_running(relatives) == []
    assert await served(env) == []
    assert await clean(tmp_path) == (0, "")
    assert not directory.exists()
