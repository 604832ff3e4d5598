"""From the first byte of a post with a small model until the first stage's worker has the job in its hands.

Beside it the raw parts of that, one after the other: one PUT of the model to the same SeaweedFS, one message to a
JetStream like ours (each write synced before it is acknowledged), and one fetch of it. Both are done 30 times a round
with nothing else going on; the gateway's connection to the storage, and the worker's request for the next message,
are open before.

Most of what the service takes on top is the gateway's own time, spread over many steps. By py-spy, of what it does for
a post: the form 13%, the walk through the model 11%, the signed PUT 18%, the writes to the event bus 20%, the answer
10%, the look at the lock 7%, the token 7%, and the framework around them. Then what the raw parts do without: a look at
the user's lock while what has come of the form is read, its claim, the entry in the index of the user's jobs and the
timer of the job's deadline. These three are written at once, each synced.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import nats
from gateway_stack import gateway_stack, stage_onnx
from harness import Row, Side, Target
from nats.js import JetStreamContext
from transfers import Client, connected

from converter.common.bus import Feed
from converter.common.settings import StorageSettings, load
from converter.common.storage import ArtifactStore, open_store
from converter.common.topology import EVENTS, stage_durable
from converter.contracts import subjects
from converter.contracts.job import Stage
from converter.devstack.demo import DATA
from converter.devstack.nats_server import NatsServer

TIMES, QUIET_S, WAIT_S = 30, 0.05, 30.0
POST, PARTS = "post to first stage", "PUT, publish and fetch"
MEDIAN, WORST = "p50 ms", "max ms"
RAW = "raw"


@contextlib.asynccontextmanager
async def sides(directory: Path) -> AsyncIterator[Sequence[Side]]:
    """The service, and its raw parts."""
    async with contextlib.AsyncExitStack() as opened:
        stack = await opened.enter_async_context(gateway_stack(directory))
        client = await opened.enter_async_context(connected(stack))
        bus = await opened.enter_async_context(stage_onnx(stack))
        feed = await opened.enter_async_context(bus.feed(EVENTS, stage_durable(Stage.ONNX)))
        store = await opened.enter_async_context(open_store(load(StorageSettings, stack.variables)))
        stream = await opened.enter_async_context(_stream(directory))
        yield [
            Side(POST, partial(_again, partial(_posted, client, feed))),
            Side(PARTS, partial(_again, partial(_parts, store, stream))),
        ]


@contextlib.asynccontextmanager
async def _stream(directory: Path) -> AsyncIterator[JetStreamContext]:
    server = NatsServer(directory / "nats")
    await server.start()
    try:
        connection = await nats.connect(server.url)
        stream = connection.jetstream()
        await stream.add_stream(name=RAW, subjects=[RAW])
        yield stream
        await connection.close()
    finally:
        await server.kill()


async def _again(once: Callable[[], Awaitable[float]]) -> Mapping[str, float]:
    took_ms = [await once() * 1e3 for _ in range(TIMES)]
    return {MEDIAN: statistics.median(took_ms), WORST: max(took_ms)}


async def _posted(client: Client, feed: Feed) -> float:
    """Seconds until the worker has the job."""
    taking = asyncio.create_task(feed.next(wait_s=WAIT_S))
    await asyncio.sleep(QUIET_S)  # until the server has the request
    began = time.perf_counter()
    posting = asyncio.create_task(client.post(0))
    delivery = await taking
    took_s = time.perf_counter() - began
    job_id = await posting
    if delivery is None or subjects.job_of(delivery.subject) != job_id:
        raise SystemExit(f"not delivered: {job_id}")
    await delivery.ack()
    return took_s


async def _parts(store: ArtifactStore, stream: JetStreamContext) -> float:
    """Seconds that one of each takes."""
    model = (DATA / "digits_cnn.onnx").read_bytes()
    taker = await stream.pull_subscribe(RAW, durable=RAW)
    began = time.perf_counter()
    await store.put(f"raw/{secrets.token_hex(8)}", model)
    await stream.publish(RAW, b"{}" * 500)
    (message,) = await taker.fetch(1, timeout=WAIT_S)
    took_s = time.perf_counter() - began
    await message.ack_sync()
    await taker.unsubscribe()
    return took_s


ROW = Row(
    name="first_stage",
    title="From a post to the first stage",
    text=__doc__ or "",
    sides=sides,
    targets=(Target(MEDIAN, POST, PARTS, at_most=2),),
)
