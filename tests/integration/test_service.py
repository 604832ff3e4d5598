"""What an operator sees of a service's process: its log lines, its answer to signals, its exit code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from converter.common import service

PROGRAM = """
import asyncio, logging, warnings
import structlog
from typing import Annotated
from msgspec import Meta
from converter.common import service
from converter.common.settings import NatsSettings, Secret, ServiceSettings
log = structlog.get_logger()

class Settings(ServiceSettings, frozen=True, kw_only=True):
    nats: NatsSettings
    signing_key: Secret
    port: Annotated[int, Meta(ge=1)] = 4000

async def main(settings, stop):
{body}

service.run("example", Settings, main)
"""
GOOD = {"NATS_URL": "nats://127.0.0.1:4222", "SIGNING_KEY": "hunter2"}


class Process:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[dict[str, Any]] = []
        self.raw: list[bytes] = []

    async def line(self, action: str) -> dict[str, Any]:
        """The next line with `action`."""
        assert self._process.stdout
        async with asyncio.timeout(20):
            while raw := await self._process.stdout.readline():
                self._read(raw)
                if self.lines[-1]["action"] == action:
                    return self.lines[-1]
        pytest.fail(f"no line {action}: {self.lines}")

    async def end(self) -> int:
        assert self._process.stdout
        async with asyncio.timeout(20):
            async for raw in self._process.stdout:
                self._read(raw)
            return await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def _read(self, raw: bytes) -> None:
        self.raw.append(raw)
        self.lines.append(json.loads(raw))

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()


Start = Callable[..., Awaitable[Process]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    started: list[Process] = []

    async def start_one(body: str, **environ: str) -> Process:
        program = tmp_path / "program.py"
        program.write_text(PROGRAM.replace("{body}", "\n".join(f"    {line}" for line in body.splitlines())))
        process = Process(
            await asyncio.create_subprocess_exec(
                sys.executable,
                program,
                env={"PATH": os.environ["PATH"]} | environ,
                stdout=asyncio.subprocess.PIPE,
                limit=1 << 20,
            )
        )
        started.append(process)
        return process

    yield start_one
    for process in started:
        await process.kill()


async def test_every_bad_setting_is_a_line_and_the_service_does_not_start(start: Start):
    process = await start("raise AssertionError('started')", NATS_URL="nowhere", PORT="0")
    assert await process.end() == 1
    refused = {line["variable"]: line["found"] for line in process.lines if line["action"] == "settings.refused"}
    assert refused == {"NATS_URL": "'nowhere'", "SIGNING_KEY": "missing", "PORT": "'0'"}
    assert len(process.lines) == len(refused)


@pytest.mark.parametrize(
    ("module", "words"),
    [("converter.common.provision", b"Makes JetStream hold what"), ("converter.stage_nef", b"The stage `nef`")],
)
@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("nonsense", 2)])
async def test_an_argument_starts_nothing_and_help_says_what_it_is_and_where_its_settings_are(
    module: str, words: bytes, argument: str, code: int
):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, argument), env={}, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    helped = code == 0
    assert (process.returncode, b"env.example" in out) == (code, helped), out
    assert (words in out) == helped


async def test_what_cannot_be_reached_is_named_in_one_line_with_its_address(start: Start):
    process = await start("raise service.Unreachable('NATS', settings.nats.nats_url, 'connection refused')", **GOOD)
    assert await process.end() == 1
    (line,) = (line for line in process.lines if line["level"] == "error")
    assert line["action"] == "service.unreachable"
    assert (line["what"], line["address"], line["why"]) == ("NATS", GOOD["NATS_URL"], "connection refused")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_the_service_finish_and_exit_with_0(start: Start, number: signal.Signals):
    process = await start("log.info('example.ready')\nawait stop.wait()\nlog.info('example.finished')", **GOOD)
    await process.line("example.ready")
    process.signal(number)
    assert await process.end() == 0
    assert [line["action"] for line in process.lines[-3:]] == [
        "service.stopping",
        "example.finished",
        "service.stopped",
    ]


async def test_a_second_signal_ends_a_service_that_does_not_finish(start: Start):
    process = await start("log.info('example.ready')\nawait asyncio.Event().wait()", **GOOD)
    await process.line("example.ready")
    process.signal(signal.SIGTERM)
    await process.line("service.stopping")
    process.signal(signal.SIGTERM)
    assert await process.end() == 128 + signal.SIGTERM


async def test_a_main_that_returns_by_itself_ends_the_service_with_0(start: Start):
    assert await (await start("pass", **GOOD)).end() == 0


async def test_an_unhandled_exception_is_one_line_with_its_traceback(start: Start):
    process = await start("raise LookupError('what was not expected')", **GOOD)
    assert await process.end() == 1
    (line,) = (line for line in process.lines if line["level"] == "error")
    assert line["action"] == "service.crashed"
    assert "program.py" in line["exception"]
    assert line["exception"].endswith("LookupError: what was not expected")


async def test_every_line_says_service_time_level_and_action_first_and_the_context_it_was_written_in(start: Start):
    process = await start(
        "structlog.contextvars.bind_contextvars(job_id='j1', request_id='r1')\nlog.info('job.created', bytes=7)", **GOOD
    )
    line = await process.line("job.created")
    assert list(line)[:4] == ["service", "timestamp", "level", "action"]
    assert (line["service"], line["level"], line["bytes"]) == ("example", "info", 7)
    assert (line["job_id"], line["request_id"]) == ("j1", "r1")


async def test_lines_that_are_written_often_come_in_their_order_in_the_same_form_and_by_themselves(start: Start):
    body = (
        "from converter.common import logs\n"
        "structlog.contextvars.bind_contextvars(request_id='r1')\n"
        "logs.often('example.one', path='Bearer hunter2.hunter2'); logs.often('example.two')\n"
        "log.info('example.three')\n"
        "logs.often('example.last')\n"
        "await stop.wait()"
    )
    process = await start(body, **GOOD)
    last = await process.line("example.last")
    assert [line["action"] for line in process.lines[1:]] == [
        f"example.{name}" for name in ("one", "two", "three", "last")
    ]
    assert process.lines[1]["path"] == "Bearer ***"
    assert list(last) == ["service", "timestamp", "level", "action", "request_id"]
    assert (last["service"], last["level"], last["request_id"]) == ("example", "info", "r1")


async def test_lines_of_libraries_warnings_and_lost_tasks_are_json_too(start: Start):
    body = (
        "structlog.contextvars.bind_contextvars(request_id='r1')\n"
        "logging.getLogger('uvicorn.error').info('Started %s', 'process')\n"
        "warnings.warn('old')\n"
        "async def lost(): raise LookupError('nobody waits for me')\n"
        "task = asyncio.create_task(lost()); await asyncio.sleep(0); del task"
    )
    process = await start(body, **GOOD)
    assert await process.end() == 0
    by_action = {line["action"]: line for line in process.lines}
    assert by_action["uvicorn.message"]["message"] == "Started process"
    assert by_action["uvicorn.message"]["request_id"] == "r1"
    assert "old" in by_action["py.message"]["message"]
    assert "nobody waits for me" in by_action["asyncio.message"]["exception"]


async def test_no_line_tells_a_secret_or_a_credential(start: Start):
    body = (
        "log.info('example.settings', settings=settings, key=settings.signing_key)\n"
        "log.info('example.sent', headers={'authorization': 'Bearer hunter2.hunter2.hunter2'})\n"
        "raise ValueError('refused Basic aHVudGVyMjpodW50ZXIy')"
    )
    process = await start(body, **GOOD)
    assert await process.end() == 1
    assert [line["action"] for line in process.lines if line["action"].startswith("example")]
    told = json.dumps(process.lines)
    assert "hunter2" not in told
    assert "aHVudGVyMjpodW50ZXIy" not in told


async def test_text_from_outside_cannot_forge_or_lose_a_line(start: Start):
    text = 'x"}\n{"action": "forged"}\x1b[2J\x9b\u2028\ud800'
    process = await start(f"log.info('example.name', filename={text!r})", **GOOD)
    assert await process.end() == 0
    (line,) = (line for line in process.lines if line["action"] == "example.name")
    assert line["filename"] == text


async def test_a_line_has_the_same_form_whatever_is_in_it(start: Start):
    process = await start("for name in ('a', 'ä'):\n    log.info('example.name', filename=name)", **GOOD)
    assert await process.end() == 0
    ends = [raw.rpartition(b'"level"')[2] for raw in process.raw if b"example.name" in raw]
    assert ends == [b':"info","action":"example.name","filename":"%s"}\n' % name for name in (b"a", rb"\u00e4")]


async def test_lines_below_the_log_level_are_not_written(start: Start):
    body = (
        "from converter.common import logs\n"
        "logs.often('example.often')\nlog.info('example.detail')\nlog.warning('example.trouble')"
    )
    process = await start(body, LOG_LEVEL="WARNING", **GOOD)
    assert await process.end() == 0
    assert [line["action"] for line in process.lines] == ["example.trouble"]


def test_unreachable_says_what_where_and_why():
    error = service.Unreachable("NATS", "nats://host:4222", "timed out")
    assert str(error) == "cannot reach NATS at nats://host:4222: timed out"


def test_unreachable_does_not_tell_the_password_of_an_address():
    assert service.Unreachable("NATS", "nats://user:hunter2@host:4222", "timed out").address == "nats://…@host:4222"
