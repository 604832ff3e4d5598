"""Wakes the clients that wait for a job: one subscription for all clients of a gateway.

Messages may be lost, and none of them is the state: a client that is woken reads the job, and does so now and then
anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterator

import msgspec
import structlog
from msgspec import Struct

from converter.common.background import background
from converter.common.bus import Bus, BusRefused, EventBusUnavailable, Followed
from converter.common.eventlog import event_in
from converter.common.topology import PROGRESS
from converter.contracts import subjects
from converter.contracts.facts import Event
from converter.contracts.job import JobRecord, JobStatus
from converter.contracts.live import ProgressReported
from converter.gateway.metrics import STREAMS_OPEN

log = structlog.get_logger()

REPORTS_MAX = 1_000
LOOK_S = 1.0
"""How often a client looks whether there is more to tell than it was woken for."""
KEPT_FOR_A_CLIENT = 8
"""Events; a client that is further behind reads them from the log."""
_progress = msgspec.json.Decoder(ProgressReported)


class Told(Struct, frozen=True):
    """An event that the log has stored, the same object for all who follow its job; `sequence` is its message's."""

    sequence: int
    event: Event
    is_last: bool
    """Whether it was the job's newest event when it was told."""
    shown: dict[str, msgspec.Raw] = {}
    """The job after it as JSON, by face."""
    writing: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)


class Watch:
    """One client's wait for one job. It keeps a few events and the last progress, however slowly the client reads."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._awake: asyncio.Future[None] = self._loop.create_future()
        """Done when something has happened. Not an `asyncio.Event`: with a thousand clients its set and wait, which
        are made for many who wait, would be a sixth of what an event costs."""
        self._look_again = self._loop.call_later(LOOK_S, self._wake_to_look)
        self._told = deque[Told]()
        self.missed = True
        """Whether events may have been missed, which only the log has then. Whoever has read it resets this."""
        self._progress: ProgressReported | None = None

    async def wait(self) -> None:
        """Until something happens, at most `LOOK_S`."""
        await self._awake
        self._awake = self._loop.create_future()

    def close(self) -> None:
        """Nobody waits any more."""
        self._look_again.cancel()

    def wake(self) -> None:
        """Something happened."""
        if not self._awake.done():
            self._awake.set_result(None)

    def tell_event(self, told: Told) -> None:
        """An event of the job was stored."""
        if len(self._told) == KEPT_FOR_A_CLIENT:
            self.tell_gap()
        else:
            self._told.append(told)
            self.wake()

    def tell_gap(self) -> None:
        """Events may have been stored that are not told."""
        self._told.clear()
        self.missed = True
        self.wake()

    def tell_progress(self, report: ProgressReported) -> None:
        """A worker told how far it is; what was told before and not taken yet is forgotten."""
        self._progress = report
        self.wake()

    def take_event(self) -> Told | None:
        """The next event, where one is known and none before it was missed."""
        return self._told.popleft() if self._told and not self.missed else None

    def _wake_to_look(self) -> None:
        # Always the same timer: one for each wait would cost more than what is waited for.
        self.wake()
        self._look_again = self._loop.call_later(LOOK_S, self._wake_to_look)

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
        self._told: OrderedDict[str, bytes] = OrderedDict()
        """The last report on each subject, empty where there is none: what was heard, or asked for."""
        self._connection_number: int | None = None

    @property
    def ending(self) -> bool:
        """Whether the gateway stops, so that nobody may wait any longer."""
        return self._stopping.is_set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Hear the progress of every job."""

        async def on_progress(subject: str, payload: bytes) -> None:
            self._keep(subject, payload)
            if watches := self._watches.get(subjects.job_of(subject)):
                with contextlib.suppress(msgspec.DecodeError):
                    report = _progress.decode(payload)
                    for watch in watches:
                        watch.tell_progress(report)

        async def on_stop() -> None:
            await self._stopping.wait()
            for watches in self._watches.values():
                for watch in watches:
                    watch.wake()

        async with self._bus.hear(subjects.PROGRESS, on_progress), background(on_stop):
            yield

    def tell_event(self, stored: Followed) -> None:
        """Tell those who watch its job of an event."""
        if watches := self._watches.get(subjects.job_of(stored.subject)):
            with contextlib.suppress(msgspec.MsgspecError):  # it is no event; who reads the log says so
                told = Told(stored.sequence, event_in(stored), is_last=True)
                for watch in watches:
                    watch.tell_event(told)

    def tell_gap(self) -> None:
        """Have everybody look into the log."""
        for watches in self._watches.values():
            for watch in watches:
                watch.tell_gap()

    @contextlib.contextmanager
    def watch(self, job_id: str) -> Iterator[Watch]:
        """Be told of this job while the context is open."""
        watch = Watch()
        self._watches.setdefault(job_id, set()).add(watch)
        try:
            with STREAMS_OPEN.track_inprogress():
                yield watch
        finally:
            watch.close()
            watches = self._watches[job_id]
            watches.discard(watch)
            if not watches:
                del self._watches[job_id]

    async def progress_of(self, job: JobRecord) -> ProgressReported | None:
        """How far the running stage of `job` is; none when it does not run or nothing is known."""
        if job.status is not JobStatus.RUNNING or job.stage is None:
            return None
        try:
            told = await self._last_told(subjects.progress(job.stage, job.job_id))
            report = _progress.decode(told) if told else None
        except (EventBusUnavailable, BusRefused, msgspec.DecodeError) as error:
            log.warning("progress.unknown", job_id=job.job_id, error=str(error))
            return None
        return report if report and is_current(report, job) else None

    async def _last_told(self, subject: str) -> bytes:
        if self._bus.connection_number != self._connection_number:  # what was told meanwhile was not heard
            self._told.clear()
            self._connection_number = self._bus.connection_number
        if subject not in self._told:
            found = await self._bus.last(PROGRESS, subject)
            if subject not in self._told:  # or else it was heard meanwhile, and is newer
                self._keep(subject, found.data if found else b"")
        return self._told[subject]

    def _keep(self, subject: str, payload: bytes) -> None:
        self._told[subject] = payload
        self._told.move_to_end(subject)
        if len(self._told) > REPORTS_MAX:
            self._told.popitem(last=False)


def is_current(report: ProgressReported, job: JobRecord) -> bool:
    """Whether `report` is of the attempt that runs now: an attempt that was fenced off may go on telling."""
    if job.status is not JobStatus.RUNNING or job.stage is not report.stage:
        return False
    return job.stages[report.stage].attempt == report.attempt
