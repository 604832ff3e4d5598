"""A gateway's copy of the jobs that are asked for, so that an answer need not ask the event log's leader.

A follower of `EVENTS` tells of every change, in order, and what is copied changes with it. The copy is served from only
while it is known to hold all that the leader had a moment ago. An event is also heard when it is published, which is
before it is stored and its writer is told so: until the follower tells of it, its job is in doubt, and a job in doubt
is read from the leader.

Nothing is decided from the copy: `JobLog` stores only what follows from the leader's last word.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable

import msgspec
import structlog

from converter.common.background import background
from converter.common.bus import Bus, BusRefused, EventBusUnavailable, Followed
from converter.common.eventlog import NOTHING, JobLog, Revision, revision_in
from converter.common.topology import EVENTS
from converter.contracts import subjects
from converter.contracts.job import JobRecord
from converter.gateway.caller import Caller
from converter.gateway.http.answers import Tagged

log = structlog.get_logger()

JOBS_MAX = 1_000
"""A record is a few kilobytes, and 64 KiB at the most."""
HOLDS_S = 1.0
"""For how long the copy is served from once it was seen to hold all that the leader had."""
LOOK_S = 0.25
"""How often that is looked at."""
CATCH_UP_S = 5.0
"""A follower that does not reach the leader within this has lost something."""
FOLLOW_AGAIN_S = 0.5
TURNS = 4
"""Of the event loop, before the copy is read: all that the bus delivered before the request has then been taken in."""
DOUBT_S = 0.5
"""For how long an event that was published is waited for: it may be one that the stream refuses."""


class _Lost(Exception):
    """The follower has missed events, or may have."""


class Copied:
    """One job as it was told last; it changes in place when it is told again."""

    def __init__(self) -> None:
        self.revision = NOTHING
        self.shown: tuple[object, Tagged] | None = None
        """The last answer that was made of it, and what of."""
        self._announced, self._doubt_until = 0, 0.0

    def take(self, revision: Revision) -> None:
        """Take in what may be news or an echo."""
        if revision.sequence > self.revision.sequence:
            self.revision = Revision(revision.state, revision.sequence)  # without the bytes: nothing is decided here

    def announce(self) -> None:
        """An event was published; the stream may take it."""
        self._announced += 1
        self._doubt_until = time.monotonic() + DOUBT_S

    def follow(self, revision: Revision) -> None:
        """The stream has taken an event."""
        self._announced = max(0, self._announced - 1)
        self.take(revision)

    def serves(self, caller: Caller | None) -> bool:
        """Whether the caller sees the job, and the copy is not in doubt."""
        state = self.revision.state
        if not isinstance(state, JobRecord) or not (caller is None or caller.sees(state)):
            return False
        return not self._announced or time.monotonic() >= self._doubt_until


class ReadCopy:
    """The jobs that were asked for last, while `following` is open.

    Args:
        bus: tells of changes, and how far the leader has come.
        job_log: the leader's word. What it learns for other reasons is taken in, too, so that a client sees what it has
            changed through this gateway.
        on_event: called with each event that the stream has stored, in order.
        on_gap: called when events may have been stored of which `on_event` was not told.
        jobs_max: how many are kept; the one that was asked for longest ago goes first.
    """

    def __init__(
        self,
        bus: Bus,
        job_log: JobLog,
        on_event: Callable[[Followed], None],
        on_gap: Callable[[], None],
        *,
        jobs_max: int = JOBS_MAX,
    ) -> None:
        self._bus, self._log, self._jobs_max = bus, job_log, jobs_max
        self._on_event, self._on_gap = on_event, on_gap
        self._jobs: OrderedDict[str, Copied] = OrderedDict()
        self._number = self._sequence = 0
        """What the follower was sent last."""
        self._lost = False
        self._moved = asyncio.Event()
        self._connection_number: int | None = None
        self._holds_until = 0.0
        job_log.on_revision = self._take

    @property
    def holds(self) -> bool:
        """Whether the copy is known to be as good as the leader."""
        return time.monotonic() < self._holds_until and self._bus.connection_number == self._connection_number

    async def read(self, job_id: str, caller: Caller | None) -> Copied:
        """The job, for an answer to `caller`; None for a caller that is known to see it.

        A caller that does not see the job is never served from the copy: how quickly it is refused would tell that the
        job exists.

        Raises:
            EventBusUnavailable: the copy does not tell, and the leader does not answer.
        """
        for _ in range(TURNS):
            await asyncio.sleep(0)
        copied, holds = self._jobs.get(job_id), self.holds
        if copied and holds and copied.serves(caller):
            self._jobs.move_to_end(job_id)
            return copied
        if copied is None:
            copied = Copied()
            if holds:
                # In its place before the leader is asked: so it does not miss what is told meanwhile.
                self._jobs[job_id] = copied
                if len(self._jobs) > self._jobs_max:
                    self._jobs.popitem(last=False)
        copied.take(await self._log.last(job_id))
        if not isinstance(copied.revision.state, JobRecord) and self._jobs.get(job_id) is copied:
            del self._jobs[job_id]
        return copied

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow the events while the context is open; what breaks is begun anew."""
        async with self._bus.hear(subjects.job_root("*"), self._announce), background(self._follow_on):
            yield

    async def _follow_on(self) -> None:
        while True:
            try:
                await self._follow()
            except (EventBusUnavailable, BusRefused, TimeoutError, _Lost) as error:
                log.warning("read_copy.dropped", error=str(error) or type(error).__name__)
            finally:
                self._holds_until = 0.0
                self._jobs.clear()
            await asyncio.sleep(FOLLOW_AGAIN_S)

    async def _follow(self) -> None:
        """Keep proving that the copy holds all that there is.

        Raises:
            _Lost, TimeoutError, EventBusUnavailable, BusRefused: it may not, or nobody knows.
        """
        self._connection_number = self._bus.connection_number
        self._number, self._lost = 0, False
        self._sequence = await self._bus.last_sequence(EVENTS)
        async with self._bus.follow(EVENTS, self._sequence, self._hear):
            self._on_gap()  # from here on all is told; what was stored before it may not have been
            while True:
                asked_at = time.monotonic()
                last = await self._bus.last_sequence(EVENTS)
                async with asyncio.timeout(CATCH_UP_S):
                    while self._sequence < last:
                        self._moved.clear()
                        await self._moved.wait()
                if self._lost or self._bus.connection_number != self._connection_number:
                    raise _Lost("events were lost, or the connection")
                self._holds_until = asked_at + HOLDS_S
                await asyncio.sleep(LOOK_S)

    async def _announce(self, subject: str, _payload: bytes) -> None:
        if copied := self._jobs.get(subject.split(".")[2]):
            copied.announce()

    def _hear(self, told: Followed) -> None:
        self._number += 1
        if told.number != self._number:
            self._holds_until, self._lost = 0.0, True
            self._on_gap()
        self._sequence = told.sequence
        self._moved.set()
        job_id = subjects.job_of(told.subject)
        if copied := self._jobs.get(job_id):
            try:
                copied.follow(revision_in(told))
            except msgspec.MsgspecError:
                del self._jobs[job_id]  # the leader's reader knows what to make of it
        self._on_event(told)

    def _take(self, job_id: str, revision: Revision) -> None:
        if copied := self._jobs.get(job_id):
            copied.take(revision)
