"""What happens now, told to whoever waits for it: one subscription for all clients of a gateway.

Nothing heard here is the state: an event may be heard before it is stored, or be refused, and a message may be lost.
Who is woken looks into the log.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import msgspec
import structlog

from converter.common.background import background
from converter.common.bus import Bus, BusRefused, EventBusUnavailable
from converter.common.topology import PROGRESS
from converter.contracts import subjects
from converter.contracts.job import JobRecord, JobStatus
from converter.contracts.live import ProgressReported

log = structlog.get_logger()

_progress = msgspec.json.Decoder(ProgressReported)


class Watch:
    """One client's wait for one job. It keeps that something happened, and the last progress: never a queue."""

    def __init__(self) -> None:
        self._awake = asyncio.Event()
        self._changed = False
        self._progress: ProgressReported | None = None

    async def wait(self, timeout_s: float) -> None:
        """Until something happens, at most `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._awake.wait()
        self._awake.clear()

    def wake(self) -> None:
        """Something happened that this does not keep."""
        self._awake.set()

    def tell_change(self) -> None:
        """An event of the job was published."""
        self._changed = True
        self._awake.set()

    def tell_progress(self, report: ProgressReported) -> None:
        """A worker told how far it is; what was told before and not taken yet is forgotten."""
        self._progress = report
        self._awake.set()

    def take_change(self) -> bool:
        """Whether an event was published since this was last asked."""
        changed, self._changed = self._changed, False
        return changed

    def take_progress(self) -> ProgressReported | None:
        """What was told last, once."""
        report, self._progress = self._progress, None
        return report


class Live:
    """Wakes the clients that wait, while `listening` is open.

    Args:
        bus: the connection.
        stopping: set when the gateway shall end what waits.
    """

    def __init__(self, bus: Bus, stopping: asyncio.Event) -> None:
        self._bus, self._stopping = bus, stopping
        self._watches: dict[str, set[Watch]] = {}

    @property
    def ending(self) -> bool:
        """Whether who waits shall give up."""
        return self._stopping.is_set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Hear the events and the progress of every job."""

        async def on_event(subject: str, _payload: bytes) -> None:
            for watch in self._watching(subject):
                watch.tell_change()

        async def on_progress(subject: str, payload: bytes) -> None:
            if watches := self._watching(subject):
                with contextlib.suppress(msgspec.DecodeError):
                    report = _progress.decode(payload)
                    for watch in watches:
                        watch.tell_progress(report)

        async def on_stop() -> None:
            await self._stopping.wait()
            for watches in self._watches.values():
                for watch in watches:
                    watch.wake()

        async with (
            self._bus.hear(subjects.job_root("*"), on_event),
            self._bus.hear(subjects.PROGRESS, on_progress),
            background(on_stop),
        ):
            yield

    @contextlib.contextmanager
    def watch(self, job_id: str) -> Iterator[Watch]:
        """Be told of this job while the context is open."""
        watch = Watch()
        self._watches.setdefault(job_id, set()).add(watch)
        try:
            yield watch
        finally:
            watches = self._watches[job_id]
            watches.discard(watch)
            if not watches:
                del self._watches[job_id]

    async def progress_of(self, job: JobRecord) -> ProgressReported | None:
        """How far the running stage of `job` is; none when it does not run or nothing is known."""
        if job.status is not JobStatus.RUNNING or job.stage is None:
            return None
        try:
            told = await self._bus.last(PROGRESS, subjects.progress(job.stage, job.job_id))
        except (EventBusUnavailable, BusRefused) as error:
            log.warning("progress.unknown", job_id=job.job_id, error=str(error))
            return None
        report = _progress.decode(told.data) if told else None
        return report if report and is_current(report, job) else None

    def _watching(self, subject: str) -> set[Watch]:
        try:
            return self._watches.get(subjects.job_of(subject), set())
        except ValueError:
            return set()


def is_current(report: ProgressReported, job: JobRecord) -> bool:
    """Whether `report` is of the attempt that runs now: an attempt that was fenced off may go on telling."""
    if job.status is not JobStatus.RUNNING or job.stage is not report.stage:
        return False
    return job.stages[report.stage].attempt == report.attempt
