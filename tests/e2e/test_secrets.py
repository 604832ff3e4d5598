"""What a whole run writes, with a killed service and refusals in it, holds no secret outside the files meant for it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import pytest
import pytest_asyncio
from collector import Collector
from digits import Digits
from upstream import Upstream
from waiting import eventually

from converter.common.eventlog import JobLog
from converter.common.lifecycle import State
from converter.common.settings import StorageSettings, load
from converter.common.storage import open_store
from converter.contracts.job import JobRecord, JobStatus
from converter.devstack.addresses import credentials
from converter.devstack.stack import Stack

from .conftest import SETTINGS

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

MEANT_FOR_THEM = {
    "secrets.json",
    "stack.env",
    "provenance.pem",
    "issuer/clients.json",
    "issuer/key.json",
    "seaweedfs/s3.json",
}
"""Below the stack's directory, files for their owner alone; the NATS users' seeds beside them."""
ANY_TOKEN = re.compile(rb"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}")
ANY_SEED = re.compile(rb"\bSU[A-Z2-7]{56}\b")
ANY_PRIVATE_KEY = re.compile(rb"BEGIN [A-Z ]*PRIVATE KEY")
USER = "whose-name-is-found"


class Run(NamedTuple):
    """What happened: the job, and the secrets that it needed, by name."""

    job_id: str
    secrets: dict[str, bytes]

    def in_text(self, text: bytes) -> set[str]:
        """The names of the secrets in `text`."""
        found = {name for name, secret in self.secrets.items() if secret in text}
        shapes = {"a token": ANY_TOKEN, "a seed": ANY_SEED, "a private key": ANY_PRIVATE_KEY}
        return found | {name for name, shape in shapes.items() if shape.search(text)}


def ended(state: State) -> bool:
    return isinstance(state, JobRecord) and state.announced


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def collector() -> AsyncIterator[Collector]:
    made = Collector()
    async with made.receiving():
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    tmp_path_factory: pytest.TempPathFactory, collector: Collector, cold_starts: None
) -> AsyncIterator[Stack]:
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    async with Stack(tmp_path_factory.mktemp("stack"), settings=SETTINGS | traced) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def run(stack: Stack, upstream: Upstream, http: httpx.AsyncClient, token: str) -> Run:
    """A job through all stages while one is killed, its promotion, a download, a failed job, and refusals."""
    api, headers = f"{stack.env['GATEWAY_URL']}/api/v1", {"Authorization": f"Bearer {token}"}
    digits, job_log = Digits(upstream), JobLog(stack.bus, "test")
    await stack.kill("stage-bie")
    job_id = (await digits.post(USER)).job_id
    await stack.start("stage-bie")
    completed = await job_log.wait(job_id, ended, timeout_s=90)
    assert isinstance(completed, JobRecord)
    assert completed.status is JobStatus.COMPLETED
    await upstream.promote(job_id, source="nef", key="secrets/digits.nef")
    made = await http.post(f"{api}/jobs/{job_id}/download-tokens", json={}, headers=headers)
    url = made.json()["url"]
    assert (await http.get(url if "://" in url else f"{stack.env['GATEWAY_URL']}{url}")).is_success
    failing = await digits.post(f"{USER}-of-a-failure", input_shape="no-such-input:1,3,8,8")
    failed = await job_log.wait(failing.job_id, ended, timeout_s=60)
    assert isinstance(failed, JobRecord)
    assert failed.status is JobStatus.FAILED
    known = credentials(stack.directory)
    # An access key is a name: the storage logs whose it is, and its secret key is the secret.
    secrets = {name: getattr(known, name).encode() for name in known.__struct_fields__ if name != "s3_access_key"}
    for user, seed in seeds(stack):
        secrets[f"seed of {user}"] = seed
    for client, secret in (
        ("CLIENT", known.client_secret),
        ("CLIENT2", known.client2_secret),
        ("", known.converter_client_secret),
    ):
        client_id = stack.env.get(f"{client}_ID") or stack.variables["KNERON_CONVERTER_CLIENT_ID"]
        secrets[f"Basic of {client_id}"] = base64.b64encode(f"{client_id}:{secret}".encode())
    pem = (stack.directory / "provenance.pem").read_bytes().split(b"\n")
    secrets |= {"token": token.encode(), "download link": url.rpartition("/")[2].encode(), "private key": pem[1]}
    assert all(len(secret) >= 20 for secret in secrets.values())
    return Run(job_id, secrets)


def seeds(stack: Stack) -> Iterator[tuple[str, bytes]]:
    for file in sorted((stack.directory / "nats-users").glob("*.seed")):
        yield file.stem, file.read_bytes().strip()


def written(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Every file that is there, as a path and its bytes."""
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield str(path.relative_to(directory)), path.read_bytes()


async def test_every_file_that_has_a_secret_is_meant_for_it_and_is_its_owners_alone(stack: Stack, run: Run):
    """All logs, the event bus's streams and buckets on its disk, the storage's volumes, the file store's files."""
    having = {path for path, content in written(stack.directory) if run.in_text(content)}
    assert {path for path in having if not path.endswith(".seed")} <= MEANT_FOR_THEM
    assert {"secrets.json", "stack.env", "provenance.pem", "issuer/clients.json"} <= having, "it would be found"
    assert {path: (stack.directory / path).stat().st_mode & 0o077 for path in having} == dict.fromkeys(having, 0)


async def test_what_was_searched_is_what_the_run_wrote(stack: Stack, run: Run):
    having = {path.partition("/")[0] for path, content in written(stack.directory) if run.job_id.encode() in content}
    assert {"logs", "nats-server", "seaweedfs"} <= having


async def test_no_object_in_storage_has_a_secret(stack: Stack, run: Run):
    """Inputs, artifacts, reports, logs and statements, as they are read and not as the storage packs them."""
    seen = 0
    async with open_store(load(StorageSettings, stack.variables)) as store:
        async for info in store.list():
            async with store.open(info.object_key) as download:
                content = b"".join([chunk async for chunk in download.chunks])
            assert not run.in_text(content), info.object_key
            assert not run.in_text(info.object_key.encode())
            seen += 1
    assert seen >= 12


async def test_no_page_and_no_refusal_tells_a_secret(
    stack: Stack, run: Run, http: httpx.AsyncClient, token: str
) -> None:
    public, internal, answers = stack.env["GATEWAY_URL"], stack.env["INTERNAL_URL"], list[httpx.Response]()
    job = f"/jobs/{run.job_id}"
    for path in ("/metrics", "/health", "/options", "/queues/stats", "/jobs", job, f"{job}/report", f"{job}/logs", "/"):
        answers.append(await http.get(internal + path))
    bearer = {"Authorization": f"Bearer {token}"}
    for path in (
        job,
        f"{job}/report",
        f"{job}/logs",
        f"{job}/events",
        f"/jobs?user_id={USER}",
        f"/jobs?user_id={token}",
    ):
        answers.append(await http.get(f"{public}/api/v1{path}", headers=bearer))
    assert len([answer for answer in answers if answer.is_success]) == len(answers) - 1
    answers += [await http.get(f"{public}/openapi"), await http.get(f"{public}/health")]
    for refused in ({"Authorization": f"Bearer {token}x"}, {"Authorization": f"Basic {token}"}, {"X-Api-Key": token}):
        answers.append(await http.get(f"{public}/api/v1{job}", headers=refused))
    answers.append(await http.get(f"{public}/api/v1/downloads/{run.secrets['download link'].decode()}x"))
    for answer in answers:
        head = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
        assert not run.in_text(answer.content + head.encode()), f"{answer.request.method} {answer.request.url}"


async def test_no_trace_tells_a_secret(
    stack: Stack, run: Run, collector: Collector, http: httpx.AsyncClient, token: str
) -> None:
    """Every span that was exported, with all its attributes and events, those of odd requests among them."""
    public, trace = stack.env["GATEWAY_URL"], "5ec7e7" * 5 + "00"
    traced = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    link = run.secrets["download link"].decode()
    paths = (f"jobs?user_id={token}", f"jobs/{token}", f"downloads/{link}", f"downloads/{link}x", token)
    for path in paths:
        for proof in ({"Authorization": f"Bearer {token}"}, {"Authorization": f"Basic {token}", "X-Api-Key": token}):
            await http.get(f"{public}/api/v1/{path}", headers=traced | proof)

    async def exported() -> bool:
        services = {span.service for span in collector.spans}
        return len(services) == 5 and len([span for span in collector.spans if span.trace == trace]) >= 2 * len(paths)

    await eventually(exported, within_s=20)
    exports = b"".join(collector.bodies)
    assert not run.in_text(exports)
    assert run.job_id.encode() in exports


async def test_no_service_tells_a_secret_in_its_metrics(stack: Stack, run: Run, http: httpx.AsyncClient):
    seen = 0
    for log in (stack.directory / "logs").glob("*.log"):
        lines = [json.loads(line) for line in log.read_text().splitlines() if '"face":"metrics"' in line]
        for line in lines[-1:]:  # of the process that runs now
            page = await http.get(f"http://127.0.0.1:{line['port']}/metrics")
            assert "converter_messages_total" in page.text
            assert not run.in_text(page.content), log.name
            seen += 1
    assert seen == 4


def processes(stack: Stack) -> Iterator[psutil.Process]:
    for pid in stack.pids.values():
        parent = psutil.Process(pid)
        yield from (parent, *parent.children(recursive=True))


async def test_no_command_line_and_no_title_of_a_process_tells_a_secret(stack: Stack, run: Run):
    seen = 0
    for process in processes(stack):
        title = "\0".join((process.name(), *process.cmdline())).encode()
        assert not run.in_text(title), title
        seen += 1
    assert seen >= len(stack.pids) >= 9
