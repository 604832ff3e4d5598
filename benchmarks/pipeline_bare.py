"""The ceiling of the rows `pipeline`: nats-py and nothing else, with the writes and round trips of the converter.

A job is eight messages of the size of the converter's, each published on the condition that the one before is still
the job's last: created, started and completed for each of three stages, and the announcement. A stage is a process
that pulls a message of the stage before, publishes that it has started and that it has completed, and acknowledges with
confirmation. The streams and consumers are the converter's own.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path

import nats
import structlog
import uvloop
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from pipeline import answer, asked
from pipeline_stages import durable_writes, staged

from converter.common.identifiers import uuid7
from converter.common.topology import EVENTS, stage_durable
from converter.contracts.job import STAGES, Stage

AT_ONCE = 64
PAYLOAD = b"x" * 2200
"""The converter's events in these rows have 1.0 to 3.4 kB, 2.2 kB on the average."""
DESCRIBED = {
    "ce-specversion": "1.0",
    "ce-source": "benchmark",
    "ce-type": "converter.stage.completed.v1",
    "ce-time": "2026-01-01T00:00:00.000Z",
}


async def published(jetstream: JetStreamContext, job_id: str, fact: str, expected: int) -> int:
    """Store an event after the one with the sequence `expected`; its own."""
    headers = {
        **DESCRIBED,
        "Nats-Msg-Id": f"{job_id}-{fact}",
        "ce-id": f"{job_id}-{fact}",
        "ce-subject": job_id,
        "Nats-Expected-Last-Subject-Sequence": str(expected),
        "Nats-Expected-Last-Subject-Sequence-Subject": f"converter.v1.{job_id}.>",
    }
    return (await jetstream.publish(f"converter.v1.{job_id}.{fact}", PAYLOAD, headers=headers)).seq


async def work(stage: Stage, url: str) -> None:
    """Be a stage until killed."""
    client = await nats.connect(url)
    jetstream = client.jetstream()
    next_message, inbox = f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS}.{stage_durable(stage)}", client.new_inbox()

    async def handle(message: Msg) -> None:
        job_id = message.subject.split(".")[2]
        sequence = message.metadata.sequence.stream
        sequence = await published(jetstream, job_id, f"stage.started.{stage}", sequence)
        sequence = await published(jetstream, job_id, f"stage.completed.{stage}", sequence)
        if stage is STAGES[-1]:
            await published(jetstream, job_id, "job.completed", sequence)
        await message.ack_sync()
        await client.publish(next_message, reply=inbox)

    async with asyncio.TaskGroup() as handling:

        async def take(message: Msg) -> None:
            handling.create_task(handle(message))

        await client.subscribe(inbox, cb=take)
        for _ in range(AT_ONCE):
            await client.publish(next_message, reply=inbox)
        await asyncio.Event().wait()


async def main() -> None:
    """Start the stages and answer."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    load, url = asked()
    async with staged(url, Path(__file__), url, environ={}) as bus, await nats.connect(url) as client:
        jetstream, waiting = client.jetstream(), {}

        async def job() -> None:
            job_id = uuid7()
            waiting[job_id] = done = asyncio.get_running_loop().create_future()
            await published(jetstream, job_id, "job.created", 0)
            await done

        async def heard(message: Msg) -> None:
            waiting.pop(message.subject.split(".")[2]).set_result(None)

        await client.subscribe("converter.v1.*.job.completed", cb=heard)
        await answer(job, load, written=partial(durable_writes, bus))


if __name__ == "__main__":
    uvloop.run(work(Stage(sys.argv[1]), sys.argv[2]) if sys.argv[1] in STAGES else main())
