"""The converter's side of the rows `pipeline` and `pickup`: its runner in three processes; see `noop_stage`.

python benchmarks/pipeline_converter.py (the protocol of `pipeline`)
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec
import structlog
import uvloop
from pipeline import answer, asked
from pipeline_stages import durable_writes, staged

from converter.common.bus import Bus
from converter.common.eventlog import NOTHING, JobLog
from converter.common.identifiers import uuid7
from converter.common.storage import open_local
from converter.common.workers import alive
from converter.contracts import subjects
from converter.contracts.facts import Event, JobCreated
from converter.contracts.job import STAGES, JobRequest, Model, timestamp

STAGE = Path(__file__).with_name("noop_stage.py")
MEMORY = Path("/dev/shm")  # noqa: S108 - a new directory below it
"""Where the objects lie: what is compared is the way of a job, so that nothing but its events is written to a disk."""
START_TIMEOUT_S = 60.0


class Client:
    """Creates jobs, and hears when they are done."""

    def __init__(self, bus: Bus, model: Model) -> None:
        self._log, self._model = JobLog(bus, "benchmark"), model
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        self._waits_ms: list[float] = []

    async def job(self) -> bytes:
        """One, from its creation to the announcement of its end, which is returned."""
        job_id = uuid7()
        self._waiting[job_id] = done = asyncio.get_running_loop().create_future()
        request = JobRequest(
            client_id="benchmark", user_id=job_id, platform="720", model_id=40000, version="0001", model=self._model
        )
        created = JobCreated(
            at=timestamp(), job_id=job_id, request=request, expires_at=timestamp(datetime.now(UTC) + timedelta(days=7))
        )
        await self._log.append_after(job_id, NOTHING, created)
        payload: bytes = await done
        return payload

    async def heard(self, subject: str, payload: bytes) -> None:
        """`job.completed`: its last stage's event, which it follows, is stored."""
        self._waiting.pop(subjects.job_of(subject)).set_result(payload)

    async def timed_job(self) -> None:
        """One whose hops are timed."""
        ended_ns = time.time_ns()
        job = msgspec.json.decode(await self.job(), type=Event).job
        for artifact in map(job.artifact, STAGES) if job else ():
            if artifact:
                began_ns, stage_ended_ns = map(int, artifact.filename.split("-"))
                self._waits_ms.append((began_ns - ended_ns) / 1e6)
                ended_ns = stage_ended_ns

    def waits_ms(self) -> list[float]:
        """What the hops of the watched jobs have waited since the last call."""
        waits_ms, self._waits_ms = self._waits_ms, []
        return waits_ms


async def main(*arguments: str) -> None:
    """Start the stages, with `arguments`, and answer."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    load, url = asked()
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        objects = Path(name) / "objects"
        stored = await open_local(objects).put("jobs/model", b"model")
        model = Model(filename="m.onnx", object_key=stored.object_key, size_bytes=5, sha256=stored.sha256)
        environ = {
            "NATS_URL": url,
            "STORAGE_BACKEND": "local",
            "LOCAL_STORAGE_DIR": str(objects),
            "WORK_DIR": name,
            "STAGE_CONCURRENCY": "64",
            "LOG_LEVEL": "WARNING",
        }
        async with staged(url, STAGE, *arguments, environ=environ) as bus:
            async with asyncio.timeout(START_TIMEOUT_S):
                while len(await alive(bus)) < len(STAGES):  # noqa: ASYNC110 - other processes' doing
                    await asyncio.sleep(0.05)
            client = Client(bus, model)
            async with bus.hear("converter.v1.*.job.completed", client.heard):
                job = client.job if load.quiet_s is None else client.timed_job
                await answer(job, load, client.waits_ms, partial(durable_writes, bus))


if __name__ == "__main__":
    uvloop.run(main())
