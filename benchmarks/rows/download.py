"""An artifact of 500 MB by its link, and the same object by a signed GET from the same SeaweedFS, by the same client.

Whole, and in ranges of 10 MB one after the other over a connection that is kept. The gateway asks the event log for
the job at each request, and takes the SHA-256 of a whole file while it passes: the last bytes go out only if it is
the recorded one. No worker made the artifact: the row stores it and writes the events of its stage.

Client, gateway and SeaweedFS share the machine's cores and keep them busy, so the ratio is that of the CPU time of all
of them, and a hop that reads and writes every byte once more cannot be free: when it was profiled, 500 MB took 1.0 to
1.2 s without the gateway, and of the gateway itself 0.45 s in ranges and 0.7 s whole, where nine tenths would leave it
0.12 s. By perf half of its time in ranges is the kernel's, reading from one socket and writing to the other, and a
quarter Python, most of it what each of the fifty requests costs; of a whole file a third is the kernel's and another
third the SHA-256. Over a network of 1 Gbit/s, 120 MB/s, it is not what limits.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from gateway_stack import gateway_stack, stage_onnx
from harness import Row, Side, Target
from transfers import MEGABYTE, PIECE, Client, connected

from converter.common.eventlog import JobLog
from converter.common.settings import StorageSettings, load
from converter.common.storage import open_store
from converter.contracts.facts import StageCompleted, StageStarted
from converter.contracts.job import Artifact, Stage, StoredObject, Toolchain, timestamp
from converter.devstack.stack import Stack

MEGABYTES, RANGE_MEGABYTES = 500, 10
GATEWAY, DIRECT = "through the gateway", "direct S3 GET"
GATEWAY_RANGES, DIRECT_RANGES = f"{GATEWAY}, in ranges", f"{DIRECT}, in ranges"
RATE = "MB/s"


@contextlib.asynccontextmanager
async def sides(directory: Path) -> AsyncIterator[Sequence[Side]]:
    """Both ways, whole and in ranges."""
    async with gateway_stack(directory) as stack, connected(stack) as client:
        job_id = await client.post(0)
        artifact = await _made(stack, job_id)
        linked, signed = await client.link(job_id), await client.signed(artifact.object_key)
        yield [
            Side(GATEWAY, partial(_fetched, client, linked, MEGABYTES)),
            Side(DIRECT, partial(_fetched, client, signed, MEGABYTES)),
            Side(GATEWAY_RANGES, partial(_fetched, client, linked, RANGE_MEGABYTES)),
            Side(DIRECT_RANGES, partial(_fetched, client, signed, RANGE_MEGABYTES)),
        ]


async def _made(stack: Stack, job_id: str) -> Artifact:
    """What the job's first stage has made."""
    directory = f"jobs/{job_id}/onnx/1"
    async with open_store(load(StorageSettings, stack.variables)) as store:
        async with store.writer(f"{directory}/artifact") as writer:
            for _ in range(MEGABYTES):
                await writer.write(PIECE)
            made = await writer.commit()
        report = await store.put(f"{directory}/report", b"{}")
    artifact = Artifact(
        object_key=made.object_key,
        size_bytes=made.size_bytes,
        sha256=made.sha256,
        filename="m.opt.onnx",
        media_type="application/octet-stream",
        created_at=timestamp(),
    )
    async with stage_onnx(stack) as bus:
        for fact in _facts(artifact, report):
            await JobLog(bus, "benchmark").append(job_id, lambda _, fact=fact: fact)  # type: ignore[misc]  # a default
    return artifact


def _facts(artifact: Artifact, report: StoredObject) -> tuple[StageStarted, StageCompleted]:
    at, worker = timestamp(), "benchmark"
    return (
        StageStarted(at=at, stage=Stage.ONNX, attempt=1, worker=worker),
        StageCompleted(
            at=at,
            stage=Stage.ONNX,
            attempt=1,
            worker=worker,
            artifact=artifact,
            report=report,
            toolchain=Toolchain(name="none", version="1"),
        ),
    )


async def _fetched(client: Client, url: str, megabytes: int) -> Mapping[str, float]:
    """All of it, this much at a time.

    Raises:
        SystemExit: less came.
    """
    came, began = 0, time.perf_counter()
    for first in range(0, MEGABYTES, megabytes):
        part = f"{first * MEGABYTE}-{(first + megabytes) * MEGABYTE - 1}" if megabytes < MEGABYTES else None
        came += await client.get(url, part)
    took_s = time.perf_counter() - began
    if came != MEGABYTES * MEGABYTE:
        raise SystemExit(f"{came} bytes came")
    return {RATE: MEGABYTES / took_s, "s": took_s}


ROW = Row(
    name="download",
    title="Download of 500 MB",
    text=__doc__ or "",
    sides=sides,
    targets=(Target(RATE, GATEWAY, DIRECT, at_least=0.9), Target(RATE, GATEWAY_RANGES, DIRECT_RANGES, at_least=0.9)),
)
