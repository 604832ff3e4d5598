"""One event of a job to 1,000 clients that follow it, against the least that can send it.

That is an ASGI application on the same HTTP server (uvicorn with httptools and uvloop) that knows neither jobs, nor
clients, nor tokens, and passes the same bytes on to everybody whom it has.

The time is from before the event is written until a client has it. For the gateway it includes the write to the event
log (`sync_interval: always`) and what brings it to the gateway; for the bare application a POST. A round tells ten
events, each when everybody has the one before. The server has one core, the clients and the event bus the other. A
client is a socket that counts; no browser is measured, and no network.

Where p99 is missed: an event is read and written once for all, but each client is woken in the request that it made, a
dozen coroutines deep, and its state is looked at before anything is sent: about three times the CPU time of the bare
application, which has one coroutine for a client. By py-spy a third of ours is the write to the socket, a quarter the
three generators that look for what is new, a tenth the layers that `send` goes through, a tenth the event loop.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
from gateway_stack import on_other_cores, served
from gateways import Gateway, gateway_alone, some_job
from harness import Row, Side, Target
from streams import Crowd, crowd

from converter.contracts.facts import StageStarted
from converter.contracts.job import Stage, timestamp

CLIENTS, EVENTS = 1_000, 10
OURS, BARE = "gateway", "bare ASGI"


class Told:
    """A job of the gateway to which things happen: attempt after attempt is started."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._attempt = gateway, 0
        self._created = some_job()

    @property
    def url(self) -> str:
        """Where it is followed."""
        return f"{self._gateway.url}/api/v1/jobs/{self._created.job_id}/events"

    async def begin(self) -> None:
        """Its creation."""
        await self._gateway.job_log.append(self._created.job_id, lambda _: self._created)

    async def go_on(self) -> None:
        """One more event."""
        self._attempt += 1
        fact = StageStarted(at=timestamp(), stage=Stage.ONNX, attempt=self._attempt, worker=f"w{self._attempt}")
        await self._gateway.job_log.append(self._created.job_id, lambda _: fact)


@asynccontextmanager
async def followed(gateway: Gateway, clients: int) -> AsyncIterator[tuple[Crowd, Told]]:
    """A job of the gateway, and the clients that follow it."""
    job = Told(gateway)
    await job.begin()
    async with crowd(job.url, clients, Authorization=f"Bearer {gateway.token}") as followers:
        yield followers, job


@asynccontextmanager
async def sides(directory: Path) -> AsyncIterator[Sequence[Side]]:
    """Both servers with their clients, on a core that they share in turns."""
    with on_other_cores() as core:
        async with (
            gateway_alone(directory, core) as gateway,
            followed(gateway, CLIENTS) as (ours, job),
            served(directory, Path(sys.executable), "bare_sse:app", Path(__file__).parent.parent) as (pid, url),
            crowd(url, CLIENTS) as theirs,
            httpx.AsyncClient(trust_env=False) as http,
        ):
            process = psutil.Process(pid)
            process.cpu_affinity([core])
            await ours.told(job.go_on)
            _, _, chunk = ours.last_event.partition(b"\r\n")  # without the length that HTTP puts before a chunk
            event = chunk.removesuffix(b"\r\n")

            async def of_gateway() -> Mapping[str, float]:
                return await ours.measure(gateway.process, EVENTS, job.go_on)

            async def of_bare() -> Mapping[str, float]:
                return await theirs.measure(process, EVENTS, lambda: http.post(url, content=event))

            yield [Side(OURS, of_gateway), Side(BARE, of_bare)]


ROW = Row(
    name="sse",
    title="Events to 1,000 clients",
    text=__doc__ or "",
    sides=sides,
    targets=(
        Target("delivered", OURS, at_least=1),
        Target("p99 ms", OURS, BARE, at_most=2),
    ),
)
