"""FastStream: a subscriber for each step on a JetStream stream, each storing in it what the next one takes.

A message is acknowledged when its step has ended and the next one's is stored. Subscribers pull, which FastStream
recommends over pushing (and which takes half the CPU here), as many messages at once as are under way, and run on
uvloop, as its command line does where that is installed. The client hears of the end by a plain message.
"""

from __future__ import annotations

import asyncio
import sys
import uuid

import uvloop
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from pipeline import answer, asked

STEPS = ("onnx", "bie", "nef")
AT_ONCE = 64

stream = JStream(name="JOBS", subjects=["jobs.*"])


async def work(url: str) -> None:
    """Be all the steps until killed."""
    broker = NatsBroker(url, logger=None)

    def subscribe(step: str, following: str | None) -> None:
        @broker.subscriber(
            f"jobs.{step}",
            stream=stream,
            durable=step,
            pull_sub=PullSub(batch_size=AT_ONCE),
            ack_policy=AckPolicy.NACK_ON_ERROR,
        )
        async def nothing(job: str) -> None:
            if following:
                await broker.publish(job, f"jobs.{following}", stream=stream.name)
            else:
                await broker.publish(job, "ended")

    for step, following in zip(STEPS, (*STEPS[1:], None), strict=True):
        subscribe(step, following)
    await broker.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


async def ask() -> None:
    """Start the workers and answer."""
    load, url = asked()
    worker = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", sys.executable, __file__, url), stdout=asyncio.subprocess.PIPE
    )
    if worker.stdout is None or await worker.stdout.readline() != b"ready\n":
        sys.exit("the workers have ended")
    ended: dict[str, asyncio.Future[None]] = {}
    broker = NatsBroker(url, logger=None)

    @broker.subscriber("ended")
    async def hear(job: str) -> None:
        ended.pop(job).set_result(None)

    async def job() -> None:
        mine = uuid.uuid4().hex
        ended[mine] = end = asyncio.get_running_loop().create_future()
        await broker.publish(mine, f"jobs.{STEPS[0]}", stream=stream.name)
        await end

    async with broker:
        await broker.start()
        await answer(job, load)
    worker.kill()
    await worker.wait()


if __name__ == "__main__":
    uvloop.run(ask() if sys.argv[1].startswith("--") else work(sys.argv[1]))
