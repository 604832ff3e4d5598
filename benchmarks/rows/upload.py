"""`POST /api/v1/jobs` with a model of 500 MB, and one `PUT` of as many bytes to the same SeaweedFS.

One client streams both, in pieces of 1 MB. The gateway reads the multipart body, walks the model, takes its SHA-256,
and stores it in parts of 5 MiB, two at a time; its time ends with the 201, when the job is in the log.

Client, gateway and SeaweedFS share the machine's cores and keep them busy, so the ratio is that of the CPU time of all
of them: 5.6 s for 500 MB put directly, 7.6 s through the gateway when it was profiled, of which SeaweedFS takes the
same 5.5 s either way. For nine tenths the gateway would have to do with 0.6 s. By perf its time is the SHA-256 of the
model and of each part for its signature (29%), reading and writing sockets (23%), Python for some 2,000 reads and
100 parts (22%), copies from the socket through the server and the multipart parser into the part (12%), and the search
for the boundary (10% with one of five characters, 3% with one as clients make them). The two digests and the sockets
alone are more than the 0.6 s, and neither digest is left out: one is the model's name, the other is what an S3 server
can hold an unencrypted part to.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import psutil
from gateway_stack import gateway_stack
from gateways import cpu_s
from harness import Row, Side, Target
from transfers import connected

from converter.devstack.stack import Stack

MEGABYTES = 500
GATEWAY, DIRECT = "through the gateway", "direct S3 PUT"
RATE = "MB/s"


@contextlib.asynccontextmanager
async def sides(directory: Path) -> AsyncIterator[Sequence[Side]]:
    """Both ways."""
    async with gateway_stack(directory) as stack, connected(stack) as client:
        await client.post(20)
        await client.put(20)
        yield [Side(GATEWAY, partial(_sent, stack, client.post)), Side(DIRECT, partial(_sent, stack, client.put))]


async def _sent(stack: Stack, send: Callable[[float], Awaitable[str]]) -> Mapping[str, float]:
    gateway = psutil.Process(stack.pids["api-gateway"])
    spent_s, began = cpu_s(gateway), time.perf_counter()
    await send(MEGABYTES)
    took_s = time.perf_counter() - began
    return {RATE: MEGABYTES / took_s, "s": took_s, "CPU s of the gateway": cpu_s(gateway) - spent_s}


ROW = Row(
    name="upload",
    title="Upload of 500 MB",
    text=__doc__ or "",
    sides=sides,
    targets=(Target(RATE, GATEWAY, DIRECT, at_least=0.9),),
)
