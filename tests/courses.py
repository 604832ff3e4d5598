"""Jobs that take every course there is, on a stack that runs; and what they say on their way.

    .venv/bin/python tests/courses.py contracts/recorded/v1.1

records it: one file for each course, with the messages as a subscriber gets them. Done once for each release; the
files of former ones stay as they are, since their messages may still lie in somebody's stream.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from digits import Digits
from upstream import Refused, Upstream, fetch_token
from waiting import eventually

from converter.common.bus import Bus, StoredMessage
from converter.common.eventlog import JobLog
from converter.common.identifiers import uuid7
from converter.common.lifecycle import Deleted, State
from converter.common.settings import NatsSettings
from converter.common.topology import EVENTS, LOGS, PROGRESS
from converter.contracts import subjects
from converter.contracts.facts import JobDeleted, JobFailed
from converter.contracts.failures import job_error
from converter.contracts.job import JobRecord, Stage, timestamp
from converter.devstack.addresses import SCOPES
from converter.devstack.services import GATEWAY
from converter.devstack.stack import Stack

WITHIN_S = 90


def over(state: State) -> bool:
    return isinstance(state, Deleted) or (isinstance(state, JobRecord) and state.announced)


class Courses:
    """Sends jobs on their courses; each returns the job's id once it has come to its end."""

    def __init__(self, stack: Stack, http: httpx.AsyncClient, token: str) -> None:
        self._stack, self._http = stack, http
        self._upstream = Upstream(http, stack.env["GATEWAY_URL"], token)
        self._digits = Digits(self._upstream)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._log = JobLog(stack.bus, "operator")

    async def promoted(self) -> str:
        """Converted, promoted, then deleted by its client."""
        job_id = await self._converted("promoted", targets="nef")
        await self._upstream.promote(job_id, source="nef", key="courses/digits.nef")
        await self._ask("DELETE", job_id)
        return job_id

    async def promotion_failed(self) -> str:
        """Converted, then refused by the file store, where another file stands in the way."""
        job_id = await self._converted("refused", targets="onnx")
        await self._upstream.promote(job_id, source="onnx", key="courses/refused")
        with contextlib.suppress(Refused):
            await self._upstream.promote(job_id, source="onnx", key="courses/refused/below")
        return job_id

    async def failed(self) -> str:
        """Its input has another shape than the model takes."""
        posted = await self._digits.post("failed", input_shape="input:1,3,32,32")
        await self._log.wait(posted.job_id, over, WITHIN_S)
        return posted.job_id

    async def cancelled(self) -> str:
        """Cancelled by its client while it waits."""
        async with self._without_conversion():
            job_id = (await self._digits.post("cancelled")).job_id
            await self._ask("POST", job_id, "/cancel")
        return job_id

    async def deadline(self) -> str:
        """Still waiting when its deadline came, and removed when its time was over."""
        error = job_error("deadline_exceeded", "The job did not end before its deadline.")
        async with self._without_conversion(), self._as_gateway() as log:
            job_id = (await self._digits.post("deadline")).job_id
            await log.append(job_id, lambda _: JobFailed(at=timestamp(), error=error))
            await log.append(job_id, lambda _: JobDeleted(at=timestamp(), reason="expired"))
        return job_id

    async def superseded(self) -> str:
        """Never created: its user's lock was taken over before."""
        job_id = uuid7()
        async with self._as_gateway() as log:
            await log.append(job_id, lambda _: JobDeleted(at=timestamp(), reason="superseded"))
        return job_id

    async def released(self) -> str:
        """Given back by a worker that was told to stop, and taken by another."""
        async with self._without_conversion():
            await self._stack.start("stage-onnx", env={"FAILPOINT": "before:convert:SIGSTOP"})
            job_id = (await self._digits.post("released", targets="onnx")).job_id
            await eventually(partial(frozen, self._stack.pids["stage-onnx"]), within_s=30)
            await self._stack.stop("stage-onnx")
        await self._log.wait(job_id, over, WITHIN_S)
        return job_id

    async def all(self) -> dict[str, str]:
        """Every course, by name the id of the job that took it."""
        courses = (
            self.promoted,
            self.promotion_failed,
            self.failed,
            self.cancelled,
            self.deadline,
            self.superseded,
            self.released,
        )
        return {course.__name__: await course() for course in courses}

    async def _converted(self, user_id: str, **fields: str) -> str:
        posted = await self._digits.post(user_id, **fields)
        job = await self._log.wait(posted.job_id, over, WITHIN_S)
        assert isinstance(job, JobRecord)
        assert job.error is None
        return posted.job_id

    async def _ask(self, method: str, job_id: str, path: str = "") -> None:
        url = f"{self._stack.env['GATEWAY_URL']}/api/v1/jobs/{job_id}{path}"
        (await self._http.request(method, url, headers=self._headers)).raise_for_status()

    @contextlib.asynccontextmanager
    async def _without_conversion(self) -> AsyncIterator[None]:
        """Without a worker for the first stage a job waits."""
        await self._stack.stop("stage-onnx")
        yield
        await self._stack.start("stage-onnx")

    @contextlib.asynccontextmanager
    async def _as_gateway(self) -> AsyncIterator[JobLog]:
        """What takes a gateway hours or an accident is published in its name, by the function that it would call."""
        seed_file = self._stack.directory / "nats-users" / f"{GATEWAY.name}.seed"
        settings = NatsSettings(nats_url=self._stack.env["NATS_URL"], nats_nkey_seed_file=seed_file)
        async with await Bus.connect(settings, name=GATEWAY.name) as bus:
            yield JobLog(bus, GATEWAY.name)


async def frozen(pid: int) -> bool:
    """Whether SIGSTOP holds the process."""
    return "\nState:\tT" in Path(f"/proc/{pid}/status").read_text()


def as_received(message: StoredMessage) -> dict[str, Any]:
    """A message as it is recorded."""
    return {"subject": message.subject, "headers": dict(message.headers), "payload": json.loads(message.data)}


async def history(bus: Bus, job_id: str) -> list[dict[str, Any]]:
    """Every message of the job, oldest first."""
    found, sequence = [], 0
    while message := await bus.next_after(EVENTS, subjects.job_root(job_id), sequence):
        found.append(as_received(message))
        sequence = message.sequence
    return found


async def record(directory: Path) -> None:
    """Run a stack and write what is said on it into `directory`."""
    with tempfile.TemporaryDirectory() as temporary:
        async with Stack(Path(temporary), settings=SETTINGS) as stack, httpx.AsyncClient(trust_env=False) as http:
            http.timeout = httpx.Timeout(60)
            token = await fetch_token(http, stack.env, scope=" ".join(SCOPES))
            jobs = await Courses(stack, http, token).all()
            recorded = {name: await history(stack.bus, job_id) for name, job_id in jobs.items()}
            subject_of = {PROGRESS: subjects.progress, LOGS: subjects.log}
            for stream, subject in subject_of.items():
                message = await stack.bus.last(stream, subject(Stage.BIE, jobs["promoted"]))
                assert message
                recorded[stream.lower()] = [as_received(message)]
    directory.mkdir(parents=True)
    for name, messages in recorded.items():
        text = json.dumps(messages, indent=2, ensure_ascii=False)
        (directory / f"{name.replace('_', '-')}.json").write_text(text + "\n")


SETTINGS: Mapping[str, str] = {"API_V1_RATE_LIMIT_MAX": "1000000", "STAGE_ACK_WAIT_S": "1.5"}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="records what a system of this release says")
    parser.add_argument("directory", type=Path, help="takes the messages; must not be there yet")
    asyncio.run(record(parser.parse_args().directory))
