"""Follows jobs: by server-sent events, over as many connections as it takes; by polling where there are none."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

import msgspec
from msgspec import Struct

from converter.client.errors import (
    ConverterError,
    Forbidden,
    JobCancelled,
    JobDeleted,
    JobFailed,
    NotTheContract,
    Refused,
    Unauthenticated,
    Unreachable,
    WaitTimedOut,
)
from converter.client.gateway import Gateway, decoded, job_path
from converter.client.patience import TROUBLES
from converter.client.resources import Job, JobEvent, LogLine, Progress
from converter.client.wire import Call

Event = JobEvent | Progress
SILENCE_S = 45.0
"""The gateway sends something every 15 s; a connection that is silent for three times that is dead."""
_EVENT_MAX_BYTES = 4 * 1024 * 1024
_LOOK_FIRST_S, _LOOK_AT_MOST_S = 0.5, 5.0
_HEARTBEATS_S = 16.0
_NO_CONTENT, _NOT_MODIFIED = 204, 304


class SseEvent(Struct):
    """One event (HTML Living Standard, section 9.2)."""

    id: str = ""
    kind: str = "message"
    data: str = ""


async def parsed(url: str, chunks: AsyncIterator[bytes]) -> AsyncGenerator[SseEvent | None, None]:
    """The events in `chunks`, and None after each chunk: something came, if only a heartbeat."""
    held, event = b"", SseEvent()
    async for chunk in chunks:
        *lines, held = (held + chunk).split(b"\n")
        if len(held) + len(event.data) > _EVENT_MAX_BYTES:
            raise NotTheContract(url, "an event without an end")
        for line in lines:
            name, _, value = line.rstrip(b"\r").decode(errors="replace").partition(":")
            value = value.removeprefix(" ")
            match name:
                case "id":
                    event.id = value
                case "event":
                    event.kind = value
                case "data":
                    event.data += ("\n" if event.data else "") + value
                case "" if not value and event.data:
                    yield event
                    event = SseEvent()
        yield None


class _Deleted(Struct):
    """What `job.deleted` tells."""

    job_id: str


async def events(gateway: Gateway, job_id: str, after: int = 0) -> AsyncGenerator[Event, None]:
    """What has happened to a job since its revision `after`, then what happens, until it has ended.

    Raises:
        ConverterError: the gateway refuses it, or has not answered for as long as the client has patience.
    """
    async with aclosing(_events(gateway, job_id, after, None)) as found:
        async for event in found:
            if event is not None:
                yield event


async def _events(gateway: Gateway, job_id: str, after: int, until: float | None) -> AsyncGenerator[Event | None, None]:
    """As `events`, with None after each chunk that came. No read lasts past `until`."""
    patience = gateway.patience()
    while True:
        left_s = SILENCE_S if until is None else min(SILENCE_S, max(until - time.monotonic(), 1.0))
        call = gateway.call(
            "GET",
            job_path(job_id, "events"),
            headers={"Accept": "text/event-stream", "Last-Event-ID": str(after) if after else None},
            read_timeout_s=left_s,
        )
        ended: ConverterError | None = Unreachable(call.url, "the stream ended", sent=True)
        try:
            async with gateway.sent(call) as answer:
                if answer.status == _NO_CONTENT:
                    return
                async for raw in parsed(call.url, answer.chunks):
                    patience.working()
                    if raw and raw.kind == "end":  # the token has expired; the next request brings another
                        ended = None
                        break
                    event = _event(call, raw) if raw else None
                    if isinstance(event, JobEvent):
                        after = event.revision
                        patience.renew()
                    yield event
                    if isinstance(event, JobEvent) and event.job is None:
                        return
        except TROUBLES as problem:
            ended = problem
        if until is not None and time.monotonic() >= until:
            return
        if ended:
            await patience.after(ended)


def _event(call: Call, raw: SseEvent) -> Event:
    try:
        if raw.kind == "progress":
            return msgspec.json.decode(raw.data, type=Progress)
        if raw.kind == "job.deleted":
            msgspec.json.decode(raw.data, type=_Deleted)
            return JobEvent(revision=int(raw.id), kind=raw.kind, job=None)
        return JobEvent(revision=int(raw.id), kind=raw.kind, job=msgspec.json.decode(raw.data, type=Job))
    except (msgspec.MsgspecError, ValueError) as error:
        raise NotTheContract(call.url, f"the event {raw.kind!r}: {error}") from error


async def wait(gateway: Gateway, job_id: str, timeout_s: float | None, seen: Callable[[Event], None]) -> Job:
    """The job once it is completed.

    Raises:
        JobFailed, JobCancelled, JobDeleted: it is not going to be.
        WaitTimedOut: it had not ended within `timeout_s`.
        ConverterError: it cannot be followed.
    """
    until = None if timeout_s is None else time.monotonic() + timeout_s
    # Heartbeats are too seldom for a stream to be left in time: the last seconds are polled.
    follow_until = None if until is None else until - _HEARTBEATS_S
    job: Job | None = None
    if follow_until is None or follow_until > time.monotonic():
        try:
            async with aclosing(_events(gateway, job_id, 0, follow_until)) as found:
                async for event in found:
                    if event is not None:
                        seen(event)
                    if isinstance(event, JobEvent):
                        job = event.job
                        if job is None:
                            raise JobDeleted(job_id)
                        if job.over:
                            return _completed(job)
                    if follow_until is not None and time.monotonic() >= follow_until:
                        break
        except (Refused, Unreachable) as problem:
            if isinstance(problem, Unauthenticated | Forbidden) or problem.code == "job_not_found":
                raise
    return _completed(await _polled(gateway, job_id, until, timeout_s or 0.0, seen))


async def _polled(
    gateway: Gateway, job_id: str, until: float | None, timeout_s: float, seen: Callable[[Event], None]
) -> Job:
    """The job once it has ended, asked for now and then."""
    tag, pause_s, revision = None, _LOOK_FIRST_S, 0
    while True:
        call = gateway.call("GET", job_path(job_id), headers={"If-None-Match": tag})
        answer = await gateway.whole(call)
        if answer.status != _NOT_MODIFIED:
            job, tag, pause_s, revision = (
                decoded(call, answer.content, Job),
                answer.headers.get("etag"),
                _LOOK_FIRST_S,
                revision + 1,
            )
            seen(JobEvent(revision=revision, kind="job.looked_at", job=job))
            if job.over:
                return job
        if until is not None:
            pause_s = min(pause_s, until - time.monotonic())
            if pause_s <= 0:
                raise WaitTimedOut(job_id, timeout_s)
        await gateway.wire.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _LOOK_AT_MOST_S)


def _completed(job: Job) -> Job:
    if job.status == "failed":
        raise JobFailed(job)
    if job.status == "cancelled":
        raise JobCancelled(job)
    return job


async def log_lines(gateway: Gateway, job_id: str, stage: str | None) -> AsyncGenerator[LogLine, None]:
    """Every line that the toolchain writes, until the job has ended.

    A stream that breaks is asked for again and tells every line again: those that were given already are skipped, by
    their number within their attempt.

    Raises:
        ConverterError: as `events`.
    """
    given: dict[tuple[str, int], int] = {}
    patience = gateway.patience()
    while True:
        call = gateway.call(
            "GET",
            job_path(job_id, "logs"),
            params={"follow": "true", "stage": stage},
            headers={"Accept": "text/event-stream"},
            read_timeout_s=SILENCE_S,
        )
        again: dict[tuple[str, int], int] = {}
        ended: ConverterError | None = Unreachable(call.url, "the stream ended", sent=True)
        try:
            async with gateway.sent(call) as answer:
                async for raw in parsed(call.url, answer.chunks):
                    patience.working()
                    if raw is None:
                        continue
                    if raw.kind == "end":
                        if "token_expired" in raw.data:  # the job goes on; the next request brings another token
                            ended = None
                            break
                        return
                    line = _line(call, raw)
                    place = (line.stage, line.attempt)
                    again[place] = again.get(place, 0) + 1
                    if again[place] > given.get(place, 0):
                        given[place] = again[place]
                        patience.renew()
                        yield line
        except TROUBLES as problem:
            ended = problem
        if ended:
            await patience.after(ended)


def _line(call: Call, raw: SseEvent) -> LogLine:
    try:
        return msgspec.json.decode(raw.data, type=LogLine)
    except msgspec.MsgspecError as error:
        raise NotTheContract(call.url, f"a log line: {error}") from error
