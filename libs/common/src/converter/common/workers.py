"""Who is at work: each worker renews a key of the bucket `workers`, which forgets it soon after it stops."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator

import msgspec
import structlog

from converter.common.background import Repeated
from converter.common.bus import Bus, BusRefused, EventBusUnavailable
from converter.common.entries import entry_in
from converter.common.topology import WORKERS, bucket_key, bucket_stream
from converter.contracts.job import timestamp
from converter.contracts.live import WorkerStatus

log = structlog.get_logger()


class Presence:
    """A worker's own entry.

    Args:
        bus: the connection.
        service: which service it belongs to.
        concurrency: how many jobs it takes at once.
    """

    def __init__(self, bus: Bus, service: str, *, concurrency: int) -> None:
        self.worker = _unique_name(service)
        self.jobs: list[str] = []
        """Once for each piece of work: a promoter may have several of one job."""
        self._bus, self._service, self._concurrency = bus, service, concurrency
        self._since = timestamp()
        self._key = bucket_key(WORKERS, f"{service}.{self.worker}")

    @contextlib.contextmanager
    def working_on(self, job_id: str) -> Iterator[None]:
        """Show `job_id` among the worker's jobs while the context is open."""
        self.jobs.append(job_id)
        try:
            yield
        finally:
            self.jobs.remove(job_id)

    @contextlib.asynccontextmanager
    async def shown(self, renew_s: float) -> AsyncIterator[None]:
        """Renew the entry every `renew_s` while the context is open, and take it away at its end.

        Raises:
            EventBusUnavailable: the first entry could not be made.
        """

        async def renew() -> None:
            try:
                await self._renew()
            except (EventBusUnavailable, BusRefused) as error:
                log.warning("worker.presence_not_renewed", error=str(error))

        await self._renew()
        try:
            async with Repeated(renew, renew_s):
                yield
        finally:
            with contextlib.suppress(EventBusUnavailable, BusRefused):
                await self._bus.store(self._key, b"", headers={"KV-Operation": "DEL"})

    async def _renew(self) -> None:
        status = WorkerStatus(
            worker=self.worker,
            service=self._service,
            since=self._since,
            concurrency=self._concurrency,
            jobs=tuple(sorted(set(self.jobs))),
        )
        await self._bus.store(self._key, msgspec.json.encode(status))


async def is_alive(bus: Bus, worker: str) -> bool:
    """Whether `worker` has renewed its entry lately.

    Raises:
        EventBusUnavailable: it cannot be told now.
        BusRefused: it cannot be told at all; nothing may be concluded.
    """
    found = await bus.last(bucket_stream(WORKERS), bucket_key(WORKERS, f"*.{worker}"))
    return found is not None and bool(found.data)


async def alive(bus: Bus) -> list[WorkerStatus]:
    """Every worker that has renewed its entry lately."""
    stream = bucket_stream(WORKERS)
    subjects = await bus.subjects(stream, bucket_key(WORKERS, ">"))
    entries = [entry_in(await bus.last(stream, subject), WorkerStatus) for subject in subjects]
    return [entry for entry in entries if entry]


def _unique_name(service: str) -> str:
    host = "".join(character if character.isalnum() else "-" for character in socket.gethostname())
    return f"{service}-{host}-{os.getpid()}-{os.urandom(3).hex()}"
