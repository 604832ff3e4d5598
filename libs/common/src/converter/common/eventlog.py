"""The event log is the state: the last message of a job carries the fact and the whole record after it.

There is one way to write, `JobLog.append`: decide from the last state, publish on the condition that it is still the
last, and when the answer is lost, find out before anything else happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import msgspec
import structlog
from msgspec import Struct

from converter.common.bus import Bus, BusRefused, EventBusUnavailable, StoredMessage, WrongSequence
from converter.common.identifiers import uuid7
from converter.common.lifecycle import Deleted, State, evolve
from converter.common.topology import EVENTS
from converter.contracts import subjects
from converter.contracts.facts import AnyFact, Event
from converter.contracts.job import JobRecord, timestamp

log = structlog.get_logger()

Decide = Callable[[State], AnyFact | None]
"""What to publish in view of a state: a fact, or nothing. It may be asked again with a newer state, and may raise."""

SETTLE_TIMEOUT_S = 20.0
"""How long an append tries to learn whether its write is stored; a leader's loss takes 5 to 8 s."""
RETRY_PAUSE_S = 0.1
RECHECK_S = 1.0

T = TypeVar("T")


class _Carried(Struct):
    """All that a state needs of an event; a fact that only a newer release knows does not matter."""

    job: JobRecord | None


_events = msgspec.json.Decoder(Event)
_carried = msgspec.json.Decoder(_Carried)


class Revision(Struct, frozen=True):
    """A job's state and the stream's sequence of the message that carries it (0: there is none)."""

    state: State
    sequence: int


NOTHING = Revision(None, 0)


class JobLog:
    """Reads and appends the events of jobs.

    Args:
        bus: the connection.
        source: who writes, for the header `ce-source`.
        settle_timeout_s: how long one append may try before it raises `EventBusUnavailable`.
    """

    def __init__(self, bus: Bus, source: str, *, settle_timeout_s: float = SETTLE_TIMEOUT_S) -> None:
        self._bus, self._source, self._settle_timeout_s = bus, source, settle_timeout_s

    async def read(self, job_id: str) -> State:
        """The job's state, from the stream's leader.

        Raises:
            EventBusUnavailable: no answer.
        """
        return (await self._last(job_id)).state

    async def append(self, job_id: str, decide: Decide) -> State:
        """Publish what `decide` makes of the job's state; the state after it.

        Returns only once it is known that the fact is stored exactly once; `decide` is asked again whenever
        somebody else wrote first.

        Raises:
            IllegalTransition: the fact cannot follow the state.
            BusRefused: the server does not take it, and has not stored it.
            EventBusUnavailable: it could not be found out in time; the fact may be stored, now or later.
            Exception: whatever `decide` raises.
        """
        give_up_at = time.monotonic() + self._settle_timeout_s
        while True:
            last = await self._until(give_up_at, lambda: self._last(job_id))
            fact = decide(last.state)
            if fact is None:
                return last.state
            after = evolve(last.state, fact)
            if after is last.state:
                return after
            if await self._publish(job_id, fact, after, last.sequence, give_up_at):
                return after

    async def history(self, job_id: str) -> list[Event]:
        """Every event of the job that this build can read, oldest first."""
        events: list[Event] = []
        async for message in self._messages(job_id):
            try:
                events.append(_events.decode(message.data))
            except msgspec.MsgspecError as error:
                log.warning("event.unknown", job_id=job_id, sequence=message.sequence, error=str(error))
        return events

    async def wait(self, job_id: str, until: Callable[[State], bool], timeout_s: float) -> State:
        """The first state that `until` accepts.

        Raises:
            TimeoutError: none came within `timeout_s`.
            EventBusUnavailable: the first look got no answer; later ones are tried again.
        """
        moved = asyncio.Event()

        async def heard(_subject: str, _payload: bytes) -> None:
            # Only a hint: what is heard here may be a write that the stream then refuses.
            moved.set()

        async with asyncio.timeout(timeout_s), self._bus.hear(subjects.job_root(job_id), heard):
            state = await self.read(job_id)
            while not until(state):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RECHECK_S):
                        await moved.wait()
                moved.clear()
                with contextlib.suppress(EventBusUnavailable):
                    state = await self.read(job_id)
            return state

    async def _last(self, job_id: str) -> Revision:
        found = await self._bus.last(EVENTS, subjects.job_root(job_id))
        if found is None:
            return NOTHING
        try:
            return Revision(_state_in(found), found.sequence)
        except msgspec.MsgspecError as error:
            log.error("event.unreadable", job_id=job_id, sequence=found.sequence, error=str(error))
            return Revision(await self._last_readable(job_id), found.sequence)

    async def _last_readable(self, job_id: str) -> State:
        """The state before somebody published what is no event, which counts as nothing but the last message."""
        state: State = None
        async for message in self._messages(job_id):
            with contextlib.suppress(msgspec.MsgspecError):
                state = _state_in(message)
        return state

    async def _messages(self, job_id: str) -> AsyncIterator[StoredMessage]:
        sequence = 0
        while found := await self._bus.next_after(EVENTS, subjects.job_root(job_id), sequence):
            yield found
            sequence = found.sequence

    async def _publish(self, job_id: str, fact: AnyFact, after: State, expected: int, give_up_at: float) -> bool:
        """Publish on the condition that `expected` is the job's last sequence; whether it is stored.

        When the answer is lost, the message that follows `expected` tells: ours, then it is stored; another's, then
        it never will be; none, then the same bytes are sent again under the same id.
        """
        event_id = uuid7()
        subject = subjects.of_fact(job_id, fact)
        payload = msgspec.json.encode(Event(fact=fact, job=after if isinstance(after, JobRecord) else None))
        headers = {
            "Nats-Msg-Id": event_id,
            "ce-specversion": "1.0",
            "ce-id": event_id,
            "ce-source": self._source,
            "ce-type": subjects.event_type(fact),
            "ce-time": timestamp(),
            "ce-subject": job_id,
        }
        root = subjects.job_root(job_id)
        while True:
            try:
                await self._bus.store(subject, payload, headers=headers, expected=expected, expected_on=root)
            except (WrongSequence, BusRefused, EventBusUnavailable) as error:
                follower = await self._until(give_up_at, lambda: self._bus.next_after(EVENTS, root, expected))
                if follower is not None:
                    return follower.headers.get("ce-id") == event_id
                if isinstance(error, BusRefused):
                    raise
                log.warning("event.unsettled", job_id=job_id, subject=subject, error=str(error))
                if time.monotonic() >= give_up_at:
                    raise EventBusUnavailable(f"{subject}: {error}") from error
                await asyncio.sleep(RETRY_PAUSE_S)
            else:
                return True

    @staticmethod
    async def _until(give_up_at: float, read: Callable[[], Awaitable[T]]) -> T:
        """`read`, again and again while the bus does not answer."""
        while True:
            try:
                return await read()
            except EventBusUnavailable:
                if time.monotonic() >= give_up_at:
                    raise
                await asyncio.sleep(RETRY_PAUSE_S)


def _state_in(message: StoredMessage) -> State:
    return _carried.decode(message.data).job or Deleted()
