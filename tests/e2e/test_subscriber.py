"""A subscriber in another language gets every event, each as the published schemas say."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import pytest_asyncio
from courses import Courses, history
from digits import Digits
from published import SCHEMAS
from waiting import eventually

from converter.common.bus import Bus
from converter.common.settings import NatsSettings
from converter.contracts.messages import FACTS
from converter.devstack.process import Program, wheel_program
from converter.devstack.services import GATEWAY
from converter.devstack.stack import Stack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

NODE = Path(__file__).parents[1] / "node"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def jobs(stack: Stack, http: httpx.AsyncClient, token: str) -> dict[str, str]:
    """The jobs of every course, by its name."""
    return await Courses(stack, http, token).all()


class Subscriber:
    """The program, and what it has said."""

    def __init__(self, stack: Stack, log: Path) -> None:
        self._log = log
        known = {name: stack.env[name] for name in ("NATS_URL", "SUBSCRIBER_NKEY_SEED")}
        self._program = Program(
            "subscriber",
            [wheel_program("node"), str(NODE / "subscriber.mjs")],
            environ={"PATH": os.defpath, "SCHEMAS": str(SCHEMAS), **known},
            log=log,
            ready=self._speaks,
        )

    async def __aenter__(self) -> Self:
        await self._program.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._program.kill()

    async def said(self, last: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Everything, once it has said what `last` looks for."""

        async def found() -> list[dict[str, Any]] | None:
            # A line that is being written has no end yet.
            lines = [
                json.loads(line) for line in self._log.read_text().splitlines(keepends=True) if line.endswith("\n")
            ]
            return lines if any(map(last, lines)) else None

        return await eventually(found, within_s=60)

    async def _speaks(self, _pid: int) -> bool:
        return bool(self._log.read_text())


async def test_every_event_of_every_course_arrives_in_order_and_as_published(
    stack: Stack, jobs: dict[str, str], tmp_path: Path
) -> None:
    end = (await history(stack.bus, jobs["released"]))[-1]["headers"]["ce-id"]
    async with Subscriber(stack, tmp_path / "said") as subscriber:
        lines = await subscriber.said(lambda line: "invalid" in line or line.get("id") == end)
    assert [line for line in lines if "invalid" in line] == []
    for job_id in jobs.values():
        sent = [message["headers"]["ce-id"] for message in await history(stack.bus, job_id)]
        assert [line["id"] for line in lines if line.get("job_id") == job_id] == sent
    assert {line["type"] for line in lines if "type" in line} == set(FACTS)


async def test_a_subscriber_that_was_away_goes_on_where_it_was_and_hears_live_what_it_then_gets(
    stack: Stack, jobs: dict[str, str], http: httpx.AsyncClient, token: str, tmp_path: Path
) -> None:
    """It has acknowledged what the test before had it read."""
    job_id = await Courses(stack, http, token).cancelled()
    async with Subscriber(stack, tmp_path / "said") as subscriber:
        await subscriber.said(lambda line: line.get("job_id") == job_id)
        later = await Courses(stack, http, token).promoted()
        lines = await subscriber.said(lambda line: line.get("type") == "job.deleted")
    assert [line["revision"] for line in lines if line.get("job_id") == job_id] == [1, 2]
    got = [line for line in lines if line.get("job_id") == later]
    assert [line["revision"] for line in got] == [*range(1, 11), None]
    assert {line["job_id"] for line in lines if "job_id" in line} == {job_id, later}
    assert {line["live"] for line in lines if "live" in line} >= {line["id"] for line in got}


async def run_as_pasted(stack: Stack, log: Path, language: str, code: str) -> Program:
    """An example of the documentation, once it has said something."""
    interpreter = {
        "python": [sys.executable, "-c", code],
        "js": [wheel_program("node"), "--input-type=module", "--eval", code],
    }

    async def speaks(_pid: int) -> bool:
        return "\n" in log.read_text()

    known = {name: stack.env[name] for name in ("NATS_URL", "SUBSCRIBER_NKEY_SEED")}
    environ = {"PATH": os.defpath, **known}
    # Node looks for packages from where it works.
    example = Program(language, interpreter[language], environ=environ, log=log, ready=speaks, directory=NODE)
    await example.start()
    return example


EXAMPLES = re.findall(r"```(python|js)\n(.*?)```", (NODE.parents[1] / "docs" / "events.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
async def test_an_example_of_the_documentation_does_what_it_says(
    stack: Stack, digits: Digits, tmp_path: Path, number: int
) -> None:
    language, code = EXAMPLES[number]
    log = tmp_path / "said"
    example = await run_as_pasted(stack, log, language, code)
    try:
        job_id = (await digits.post(f"example-{number}", targets="onnx")).job_id

        async def said() -> bool:
            return f"{job_id} job.completed" in log.read_text()

        await eventually(said, within_s=60)
    finally:
        await example.kill()


async def test_the_documentation_has_examples_in_both_languages() -> None:
    assert {language for language, _ in EXAMPLES} == {"python", "js"}


async def test_a_message_that_is_not_as_published_is_found_out(
    stack: Stack, jobs: dict[str, str], tmp_path: Path
) -> None:
    message = (await history(stack.bus, jobs["cancelled"]))[-1]
    message["payload"]["job"]["status"] = "gone"
    seed_file = stack.directory / "nats-users" / f"{GATEWAY.name}.seed"
    settings = NatsSettings(nats_url=stack.env["NATS_URL"], nats_nkey_seed_file=seed_file)
    headers = {name: value for name, value in message["headers"].items() if name.startswith("ce-")}
    async with await Bus.connect(settings, name=GATEWAY.name) as bus:
        await bus.store(message["subject"], json.dumps(message["payload"]).encode(), headers=headers)
    async with Subscriber(stack, tmp_path / "said") as subscriber:
        lines = await subscriber.said(lambda line: "invalid" in line)
    assert "status" in lines[-1]["invalid"]
