"""The same event of a job to 1, 10, 100 and 1,000 clients that follow it: what each client more costs the gateway.

A round tells as many events as make 2,000 deliveries, but at least ten and at most 200, so that the CPU time can be
told. What an event costs once, however many follow, is in it: it weighs most where there is one client. What clients
cost who wait while nothing happens is measured apart, over five seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from gateway_stack import on_other_cores
from gateways import Gateway, cpu_s, gateway_alone
from harness import Row, Side, Target

from .sse import followed

CLIENTS = (1, 10, 100, 1_000)
DELIVERIES, FEWEST, MOST = 2_000, 10, 200
QUIET_S = 5.0


@asynccontextmanager
async def sides(directory: Path) -> AsyncIterator[Sequence[Side]]:
    """One gateway; the clients of a side are there for its round alone."""
    with on_other_cores() as core:
        async with gateway_alone(directory, core) as gateway:
            yield [Side(str(clients), partial(_measure, gateway, clients)) for clients in CLIENTS]


async def _measure(gateway: Gateway, clients: int) -> Mapping[str, float]:
    events = min(max(DELIVERIES // clients, FEWEST), MOST)
    async with AsyncExitStack() as following:
        ours, job = await following.enter_async_context(followed(gateway, clients))
        found = await ours.measure(gateway.process, events, job.go_on)
        began_s = cpu_s(gateway.process)
        await asyncio.sleep(QUIET_S)
        return {**found, "server CPU % while nothing happens": (cpu_s(gateway.process) - began_s) / QUIET_S * 100}


ROW = Row(
    name="sse_clients",
    title="What each client of a stream costs",
    text=__doc__ or "",
    sides=sides,
    targets=(
        Target("delivered", "1000", at_least=1),
        Target("server CPU µs per client and event", "1000", "10", at_most=1.5),
    ),
    axis="clients",
)
