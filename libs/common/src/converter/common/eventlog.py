"""The event log is the state: the last message of a job carries the fact and the whole record after it.

There is one way to write, `JobLog.append`: decide from the last state, publish on the condition that it is still the
last, and when the answer is lost, find out before anything else happens. `JobLog.append_after` is its second half, for
who has the last state already.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeVar

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from converter.common import tracing
from converter.common.bus import Bus, BusRefused, Delivery, EventBusUnavailable, Followed, StoredMessage, WrongSequence
from converter.common.carried import Carrier, succeeded
from converter.common.identifiers import uuid7
from converter.common.lifecycle import Deleted, State, evolve
from converter.common.metrics import STATE_CONFLICTS
from converter.common.topology import EVENTS
from converter.contracts import subjects
from converter.contracts.facts import AnyFact, Event, StageCompleted
from converter.contracts.job import JobRecord, Stage, timestamp
from converter.contracts.messages import EventHeaders

log = structlog.get_logger()

Decide = Callable[[State], AnyFact | None]
"""What to publish in view of a state: a fact, or nothing. It may be asked again with a newer state, and may raise."""

SETTLE_TIMEOUT_S = 20.0
"""How long an append tries to learn whether its write is stored; a leader's loss takes 5 to 8 s."""
RETRY_PAUSE_S = 0.1
RECHECK_S = 1.0

T = TypeVar("T")
Message = StoredMessage | Followed | Delivery

_events = msgspec.json.Decoder(Event)
_carriers = msgspec.json.Decoder(Carrier)
_NO_RECORD = msgspec.Raw(b"null")


class Revision(Struct, frozen=True):
    """A job's state, the record that says so, and the stream's sequence of its last message (0: there is none)."""

    state: State
    sequence: int
    carried: msgspec.Raw = _NO_RECORD


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
        self.on_revision: Callable[[str, Revision], None] = lambda _job_id, _revision: None
        """Called with a job's id and each state of it that the leader tells, or takes from here."""

    async def read(self, job_id: str) -> State:
        """The job's state, from the stream's leader.

        Raises:
            EventBusUnavailable: no answer.
        """
        return (await self.last(job_id)).state

    async def last(self, job_id: str) -> Revision:
        """The job's state, and which message carries it, from the stream's leader.

        Raises:
            EventBusUnavailable: no answer.
        """
        revision = await self._last(job_id)
        self.on_revision(job_id, revision)
        return revision

    async def append(self, job_id: str, decide: Decide) -> State:
        """Publish what `decide` makes of the job's state; the state after it.

        Returns only once it is known that the fact is stored exactly once; `decide` is asked again whenever
        somebody else wrote first.

        Raises:
            IllegalTransition: the fact cannot follow the state.
            BusRefused: the server does not take it, as when the log is full, and has not stored it.
            EventBusUnavailable: it could not be found out in time; the fact may be stored, now or later.
            Exception: whatever `decide` raises.
        """
        give_up_at = time.monotonic() + self._settle_timeout_s
        while True:
            last = await self._until(give_up_at, lambda: self.last(job_id))
            fact = decide(last.state)
            if fact is None:
                return last.state
            after = await self.append_after(job_id, last, fact, give_up_at=give_up_at)
            if after is not None:
                return after.state

    async def append_after(
        self, job_id: str, last: Revision, fact: AnyFact, *, give_up_at: float | None = None
    ) -> Revision | None:
        """Publish `fact` if the job is still as `last` says; what it is then, or `None` if somebody else wrote first.

        For who knows the job's state already: `append` without its look, and without its second try.

        Raises:
            IllegalTransition: the fact cannot follow `last`.
            BusRefused, EventBusUnavailable: see `append`.
        """
        after = evolve(last.state, fact)
        if after is last.state:
            return last
        if give_up_at is None:
            give_up_at = time.monotonic() + self._settle_timeout_s
        carried = _carried_by(last, after)
        sequence = await self._publish(job_id, fact, carried, last.sequence, give_up_at)
        if sequence is None:
            return None
        revision = Revision(after, sequence, carried)
        self.on_revision(job_id, revision)
        return revision

    async def history(self, job_id: str) -> list[Event]:
        """Every event of the job that this build can read, oldest first."""
        return [event async for _, event in self.events_after(job_id, 0)]

    async def events_after(self, job_id: str, sequence: int) -> AsyncIterator[tuple[int, Event]]:
        """The job's events past `sequence` that this build can read, each with its own, as they are asked for."""
        async for message in self._messages(job_id, sequence):
            try:
                yield message.sequence, event_in(message)
            except msgspec.MsgspecError as error:
                log.warning("event.unknown", job_id=job_id, sequence=message.sequence, error=str(error))

    async def creation(self, job_id: str) -> JobRecord | None:
        """The job as it was created, if it was; also of a job that is deleted.

        Raises:
            EventBusUnavailable: no answer.
            msgspec.MsgspecError: what stands there is no event that this build can read.
        """
        found = await self._bus.next_after(EVENTS, subjects.job_created(job_id), 0)
        return event_in(found).job if found else None

    async def completion(self, job_id: str, stage: Stage) -> StageCompleted | None:
        """What the stage made, if it has; also of a job that is deleted.

        Raises:
            EventBusUnavailable: no answer.
            msgspec.MsgspecError: what stands there is no event that this build can read.
        """
        found = await self._bus.last(EVENTS, subjects.stage_completed(job_id, stage))
        if found is None:
            return None
        fact = event_in(found).fact
        return fact if isinstance(fact, StageCompleted) else None

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
            return revision_in(found)
        except msgspec.MsgspecError as error:
            log.error("event.unreadable", job_id=job_id, sequence=found.sequence, error=str(error))
            return replace(await self._last_readable(job_id), sequence=found.sequence)

    async def _last_readable(self, job_id: str) -> Revision:
        """The state before somebody published what is no event, which counts as nothing but the last message."""
        revision = NOTHING
        async for message in self._messages(job_id):
            with contextlib.suppress(msgspec.MsgspecError):
                revision = revision_in(message)
        return revision

    async def _messages(self, job_id: str, sequence: int = 0) -> AsyncIterator[StoredMessage]:
        while found := await self._bus.next_after(EVENTS, subjects.job_root(job_id), sequence):
            yield found
            sequence = found.sequence

    async def _publish(
        self, job_id: str, fact: AnyFact, job: msgspec.Raw, expected: int, give_up_at: float
    ) -> int | None:
        """Publish on the condition that `expected` is the job's last sequence; its own, or none if it is not stored.

        When the answer is lost, the message that follows `expected` tells: ours, then it is stored; another's, then
        it never will be; none, then the same bytes are sent again under the same id.
        """
        event_id = uuid7()
        subject = subjects.of_fact(job_id, fact)
        payload = msgspec.json.encode({"fact": fact, "job": job})  # as `Event` has it
        described = EventHeaders(
            specversion="1.0",
            id=event_id,
            source=self._source,
            type=subjects.event_type(fact),
            time=timestamp(),
            subject=job_id,
        )
        headers = {"Nats-Msg-Id": event_id, **msgspec.to_builtins(described), **tracing.carried()}
        root = subjects.job_root(job_id)
        while True:
            try:
                return await self._bus.store(subject, payload, headers=headers, expected=expected, expected_on=root)
            except (WrongSequence, BusRefused, EventBusUnavailable) as error:
                follower = await self._until(give_up_at, lambda: self._bus.next_after(EVENTS, root, expected))
                if follower is not None:
                    mine = follower.headers.get("ce-id") == event_id
                    STATE_CONFLICTS.inc(0 if mine else 1)
                    return follower.sequence if mine else None
                if isinstance(error, BusRefused):
                    raise
                log.warning("event.unsettled", job_id=job_id, subject=subject, error=str(error))
                if time.monotonic() >= give_up_at:
                    raise EventBusUnavailable(f"{subject}: {error}") from error
                await asyncio.sleep(RETRY_PAUSE_S)

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


def event_in(message: Message) -> Event:
    """The event that `message` is.

    Raises:
        MsgspecError: it is none that this build can read, or another job's.
    """
    with _bounded():
        event = _events.decode(message.data)
    _hold_to_its_job(message, event.job)
    return event


def revision_in(message: Message) -> Revision:
    """The job's state after the event that `message` is.

    Raises:
        MsgspecError: it is no event, or another job's.
    """
    with _bounded():
        carrier = _carriers.decode(message.data)
        record = carrier.record()
    _hold_to_its_job(message, record)
    return Revision(record or Deleted(), message.sequence, carrier.job)


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """What is nested deeper than can be read is no event, and no fault of the reader either."""
    try:
        yield
    except RecursionError as error:
        raise msgspec.ValidationError("nested too deep") from error


def _hold_to_its_job(message: Message, record: JobRecord | None) -> None:
    """Who may ask the server something can have it put an answer on any subject, another job's event among them.

    Raises:
        ValidationError: `message` is such an event. One that carries no record names its job in its headers.
    """
    owner = record.job_id if record else message.headers.get("ce-subject")
    if owner != subjects.job_of(message.subject):
        raise msgspec.ValidationError(f"an event of the job {owner}")


def _carried_by(last: Revision, after: State) -> msgspec.Raw:
    """What the event carries that leads from `last` to `after`."""
    if not isinstance(after, JobRecord):
        return _NO_RECORD
    if not isinstance(last.state, JobRecord):
        return msgspec.Raw(msgspec.json.encode(after))
    return succeeded(last.carried, last.state, after)
