"""Celery: a chain of three tasks through Redis.

Tasks are acknowledged when they have ended (`acks_late`), for without that a killed worker loses what it had taken; the
steps in between keep no result. As the guide to optimising advises for short tasks, a worker has a process for each
core and takes many messages ahead; gossip, mingling and heartbeats are off. The client hears of the end by what the
result backend publishes.
"""

from __future__ import annotations

import asyncio
import os
import sys

from celery import Celery, chain
from pipeline import answer, asked
from redis.asyncio import Redis

STEPS = ("onnx", "bie", "nef")

app = Celery("three_steps", broker=os.environ.get("SERVER"), backend=os.environ.get("SERVER"))
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=64,
    worker_concurrency=os.cpu_count(),
    broker_connection_retry_on_startup=True,
)


@app.task(ignore_result=True)
def onnx() -> None:
    """Be the first step."""


@app.task(ignore_result=True)
def bie() -> None:
    """Be the second step."""


@app.task
def nef() -> None:
    """Be the third step."""


async def main() -> None:
    """Start the workers and answer."""
    load, url = asked()
    os.environ["SERVER"] = url
    app.conf.update(broker_url=url, result_backend=url)
    worker = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "celery", "--app", "three_steps", "worker"),
        *("--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"),
        stdout=sys.stderr,
    )
    ended: dict[str, asyncio.Future[None]] = {}
    prefix = app.backend.task_keyprefix
    async with Redis.from_url(url) as redis, redis.pubsub() as published:
        await published.psubscribe(f"{prefix.decode()}*")

        async def hear() -> None:
            async for message in published.listen():
                if message["type"] == "pmessage":
                    ended.pop(message["channel"].removeprefix(prefix).decode()).set_result(None)

        async def job() -> None:
            last = chain(onnx.si(), bie.si(), nef.si()).apply_async()
            ended[last.id] = end = asyncio.get_running_loop().create_future()
            await end

        hearing = asyncio.create_task(hear())
        await answer(job, load)
        hearing.cancel()
    worker.kill()
    await worker.wait()


if __name__ == "__main__":
    asyncio.run(main())
