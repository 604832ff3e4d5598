"""How throughput grows with workers, and what one job costs NATS and the storage: the constants of docs/capacity.md.

    python benchmarks/capacity.py

Starts the real servers it needs. The first part lets workers of one stage wait instead of compute, so that two cores
can show whether anything but the waiting limits them; the second converts the demo's model and counts what is left; the
third has a gateway's index of jobs read many and looks what it keeps of each.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from waiting_stage import WAIT_S

from converter.client import AsyncClient, ClientCredentials, Order
from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.identifiers import uuid7
from converter.common.lifecycle import State
from converter.common.provision import provision
from converter.common.settings import NatsSettings, StorageSettings, load
from converter.common.storage import open_local, open_store
from converter.common.topology import EVENTS, JOB_STATE, Tuning, bucket_stream
from converter.contracts.facts import JobCreated
from converter.contracts.job import JobRecord, JobRequest, Model, Options, Stage, timestamp
from converter.devstack import demo
from converter.devstack.nats_server import NatsServer
from converter.devstack.stack import Stack
from converter.gateway.index import JobFilter, JobIndex

JOBS, WORKERS = 48, (1, 2, 4)
LISTED = 2_000


async def main() -> None:
    """Print all parts."""
    for workers in WORKERS:
        seconds, events_per_s = await throughput(workers)
        share = JOBS * WAIT_S / seconds / workers
        _tell(f"{workers} workers: {JOBS / seconds:.2f} jobs/s, {share:.0%} of what the waiting allows")
    _tell(f"one writer alone: {events_per_s:.0f} events/s")
    for name, figure in (await one_job()).items():
        _tell(f"{name}: {figure:,.0f}")
    _tell(f"bytes of a job in a gateway's memory: {await listed_bytes():,.0f}")


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")


async def throughput(workers: int) -> tuple[float, float]:
    """Seconds from the first start of `JOBS` jobs to the last end, and events a second while they were posted."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        nats = NatsServer(directory / "nats")
        await nats.start()
        try:
            async with await Bus.connect(NatsSettings(nats_url=nats.url), name="benchmark") as bus:
                await provision(bus, Tuning())
                job_log = JobLog(bus, "benchmark")
                facts = [await _posted(directory / "objects", number) for number in range(JOBS)]
                began = time.monotonic()
                for fact in facts:
                    await job_log.append(fact.job_id, lambda _, fact=fact: fact)  # type: ignore[misc]  # a default for mypy
                events_per_s = JOBS / (time.monotonic() - began)
                async with AsyncExitStack() as stack:
                    for _ in range(workers):
                        await stack.enter_async_context(_worker(directory, nats.url))
                    ended = [await job_log.wait(fact.job_id, _over, timeout_s=600) for fact in facts]
                records = [job for job in ended if isinstance(job, JobRecord)]
                first = min(_at(job.stages[Stage.ONNX].started_at) for job in records)
                last = max(_at(job.completed_at) for job in records)
                return (last - first).total_seconds(), events_per_s
        finally:
            await nats.kill()


async def one_job() -> dict[str, float]:
    """What the demo's model with 100 images leaves behind, its own bytes aside."""
    with tempfile.TemporaryDirectory() as name:
        async with Stack(Path(name)) as stack, open_store(load(StorageSettings, stack.variables)) as store:
            env = stack.env
            auth = ClientCredentials(
                token_url=env["TOKEN_URL"],
                client_id=env["CLIENT_ID"],
                client_secret=env["CLIENT_SECRET"],
                audience=env["AUDIENCE"],
            )
            images = sorted((demo.DATA / "digits_calibration").glob("*.png"))
            order = Order(
                model=demo.DATA / "digits_cnn.onnx", images=images, user_id="alice", platform="720", model_id=40001
            )
            before = await _kept(stack.bus)
            async with AsyncClient(env["GATEWAY_URL"], auth) as client:
                job = await client.submit(order)
                await client.wait(job.job_id)
            await JobLog(stack.bus, "benchmark").wait(job.job_id, _over, timeout_s=60)
            after = await _kept(stack.bus)
            objects = [each async for each in store.list(f"jobs/{job.job_id}/")]
            made = [each.size_bytes for each in objects if "/input/" not in each.object_key]
            return {
                "events of a job": after["messages"] - before["messages"],
                "bytes of them in EVENTS": after["bytes"] - before["bytes"],
                "bytes of its record in job_state": after["record"] - before["record"],
                "objects": len(objects),
                "bytes of what the stages stored": sum(made),
            }


async def listed_bytes() -> float:
    """What a gateway's index keeps of each job that is not deleted."""
    with tempfile.TemporaryDirectory() as name:
        nats = NatsServer(Path(name) / "nats")
        await nats.start()
        try:
            async with await Bus.connect(NatsSettings(nats_url=nats.url), name="benchmark") as bus:
                await provision(bus, Tuning())
                job_log, index = JobLog(bus, "benchmark"), JobIndex(bus)
                for number in range(LISTED):
                    fact = await _posted(Path(name) / "objects", number)
                    await job_log.append(fact.job_id, lambda _, fact=fact: fact)  # type: ignore[misc]  # a default for mypy
                tracemalloc.start()
                while sum(1 for _ in index.find(JobFilter())) < LISTED:  # the bucket follows the log a little later
                    await index.refresh()
                return tracemalloc.get_traced_memory()[0] / LISTED
        finally:
            await nats.kill()


async def _kept(bus: Bus) -> dict[str, int]:
    events = (await bus.api(f"STREAM.INFO.{EVENTS}"))["state"]
    records = (await bus.api(f"STREAM.INFO.{bucket_stream(JOB_STATE)}"))["state"]
    return {"messages": events["messages"], "bytes": events["bytes"], "record": records["bytes"]}


async def _posted(objects: Path, number: int) -> JobCreated:
    job_id = uuid7()
    stored = await open_local(objects).put(f"jobs/{job_id}/input/model", b"model")
    model = Model(filename="m.onnx", object_key=stored.object_key, size_bytes=stored.size_bytes, sha256=stored.sha256)
    request = JobRequest(
        client_id="benchmark",
        user_id=f"user{number}",
        platform="720",
        model_id=40000 + number % 20000,
        version="0001",
        model=model,
        options=Options(last_stage=Stage.ONNX),
    )
    expires_at = timestamp(datetime.now(UTC) + timedelta(days=7))
    return JobCreated(at=timestamp(), job_id=job_id, request=request, expires_at=expires_at)


@asynccontextmanager
async def _worker(directory: Path, nats_url: str) -> AsyncIterator[None]:
    environ = {
        "NATS_URL": nats_url,
        "STORAGE_BACKEND": "local",
        "LOCAL_STORAGE_DIR": str(directory / "objects"),
        "LOG_LEVEL": "WARNING",
    }
    program = Path(__file__).with_name("waiting_stage.py")
    process = await asyncio.create_subprocess_exec(sys.executable, str(program), env=os.environ | environ)
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


def _over(state: State) -> bool:
    return isinstance(state, JobRecord) and state.announced


def _at(moment: str | None) -> datetime:
    return datetime.fromisoformat(moment or "")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    asyncio.run(main())
