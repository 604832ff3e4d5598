"""What the toolchain wrote: whole, as text, or line by line while it writes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from functools import partial

import msgspec
import structlog
from litestar import Response, get
from litestar.enums import MediaType
from msgspec import Struct

from converter.common.bus import EventBusUnavailable
from converter.common.topology import LOGS
from converter.contracts import subjects
from converter.contracts.job import STAGES, JobRecord, Stage, StageState, StoredObject, Timestamp
from converter.contracts.live import LogWritten
from converter.gateway.endpoints.events import follow
from converter.gateway.endpoints.jobs import ApiRequest, own_job, shown_job
from converter.gateway.gateway import Gateway
from converter.gateway.http.errors import FieldError, Refusal, bad_fields
from converter.gateway.http.query import flag_in, read_query
from converter.gateway.http.sse import HEARTBEAT, HEARTBEAT_S, sse_event
from converter.gateway.http.streaming import Recheck, Streamed, opened
from converter.gateway.http.written import shown
from converter.gateway.live import Watch
from converter.gateway.openapi.documentation import Answer, Operation, Parameter

log = structlog.get_logger()

LINE_MAX_BYTES = 16 * 1024
"""A stored line that is longer is given in pieces when it is followed."""

_line = msgspec.json.Decoder(LogWritten)


class LogQuery(Struct, frozen=True, kw_only=True):
    """Which log, and whether to stay for more; without `stage` it is every stage's."""

    stage: Stage | None = None
    follow: bool = False

    @classmethod
    def parse(cls, query_string: bytes) -> LogQuery:
        """The query in a URL.

        Raises:
            Refusal: `validation_error` that names every bad parameter.
        """
        given, problems = read_query(query_string, cls.__struct_fields__)
        stage, follow = given.get("stage"), flag_in(given, "follow", problems)
        if stage is not None and stage not in list(STAGES):
            problems.append(FieldError("stage", f"found {shown(stage)}; allowed: {', '.join(STAGES)}"))
        if problems:
            raise bad_fields(problems)
        return cls(stage=Stage(stage) if stage else None, follow=follow)


_LOGS = Operation(
    parameters=(
        Parameter("stage", {"type": "string", "enum": list(STAGES)}, "Only this stage's."),
        Parameter("follow", {"type": "boolean", "default": False}, "Stay for what comes, as server-sent events."),
    ),
    answers={
        200: Answer("The log, or its lines as events; `end` says why.", {}, (), ("text/plain", "text/event-stream")),
    },
    refusals=("storage_unavailable", "service_busy"),
    tag="artifacts",
)


@get("/api/v1/jobs/{job_id:str}/logs", opt={"requires": "read", "operation": _LOGS}, media_type=MediaType.TEXT)
async def get_logs(request: ApiRequest, gateway: Gateway, job_id: str) -> Response[bytes]:
    """The stored log of each stage that has ended, and of one that has not the lines so far (the last 1,000).

    With `follow=true` every line is an event, and the stream ends with the job. The lines have no ids: who connects
    again gets all of them anew. `end` with the job's `status` means not to; with a `reason`: the token has expired.
    """
    query = LogQuery.parse(request.scope["query_string"])
    caller = request.user
    record = await shown_job(gateway, caller, job_id)
    recheck = partial(own_job, gateway, caller, job_id)
    if query.follow:
        look = partial(shown_job, gateway, caller, job_id)
        return follow(gateway, caller, _Follower(gateway, record, query.stage, look, recheck).events)

    @asynccontextmanager
    async def body() -> AsyncIterator[AsyncGenerator[bytes, None]]:
        async with AsyncExitStack() as stack:
            parts = {
                stage: await stack.enter_async_context(_log_of(gateway, record.job_id, stage, state, recheck))
                for stage, state in _begun(record, query.stage).items()
            }
            yield await stack.enter_async_context(aclosing(_joined(parts, titled=query.stage is None)))

    return Streamed(body, headers={"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"})


def _begun(record: JobRecord, chosen: Stage | None) -> dict[Stage, StageState]:
    """The stages asked for that have been tried."""
    return {
        stage: state for stage, state in record.stages.items() if state.attempt and (chosen is None or stage is chosen)
    }


async def _joined(parts: dict[Stage, AsyncGenerator[bytes, None]], *, titled: bool) -> AsyncGenerator[bytes, None]:
    for number, (stage, chunks) in enumerate(parts.items()):
        if titled:
            yield f"{'' if number == 0 else chr(10)}==> {stage} <==\n".encode()
        async for chunk in chunks:
            yield chunk


@asynccontextmanager
async def _log_of(
    gateway: Gateway, job_id: str, stage: Stage, state: StageState, recheck: Recheck
) -> AsyncIterator[AsyncGenerator[bytes, None]]:
    """A stage's stored log, or the lines of its last attempt that are still known."""
    if state.log is not None:
        async with opened(gateway.store, state.log, recheck) as chunks:
            yield chunks
        return

    async def text() -> AsyncGenerator[bytes, None]:
        async for _, written in lines_on(gateway, subjects.log(stage, job_id)):
            if written.attempt == state.attempt:
                yield f"{written.line}\n".encode()

    async with aclosing(text()) as chunks:
        yield chunks


async def lines_on(gateway: Gateway, subject: str, after: int = 0) -> AsyncGenerator[tuple[int, LogWritten], None]:
    """The lines on `subject` that the stream holds past the sequence `after`, each with its own.

    What is no line that this build can read is left out.
    """
    while found := await gateway.bus.next_after(LOGS, subject, after):
        after = found.sequence
        try:
            written = _line.decode(found.data)
        except (msgspec.MsgspecError, RecursionError) as error:
            log.warning("line.unknown", subject=subject, sequence=after, error=str(error))
            continue
        yield after, written


def woken_by_lines(gateway: Gateway, job_id: str, watch: Watch) -> AbstractAsyncContextManager[None]:
    """While it is open, whatever the job's stages write wakes who waits."""

    async def heard(_subject: str, _payload: bytes) -> None:
        watch.wake()

    return gateway.bus.hear(subjects.log_of_stages(job_id), heard)


class _Follower:
    """One client that stays for what comes. What it does not take yet is not read yet."""

    def __init__(
        self,
        gateway: Gateway,
        record: JobRecord,
        chosen: Stage | None,
        look: Callable[[], Awaitable[JobRecord]],
        recheck: Recheck,
    ) -> None:
        self._gateway, self._record, self._look, self._recheck = gateway, record, look, recheck
        self._stages = (chosen,) if chosen else record.request.stages
        self._spoke_at = time.monotonic()

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Every line, in the order of the stages; then `end`, once the job has ended."""
        job_id = self._record.job_id
        with self._gateway.live.watch(job_id) as watch:
            async with woken_by_lines(self._gateway, job_id, watch):
                try:
                    for stage in self._stages:
                        async with aclosing(self._of_stage(stage, watch)) as events:
                            async for event in events:
                                yield event
                                self._spoke_at = time.monotonic()
                except Refusal:  # the job was deleted
                    return
        if not self._gateway.live.ending:
            yield sse_event("end", {"job_id": job_id, "status": self._record.status})

    async def _of_stage(self, stage: Stage, watch: Watch) -> AsyncGenerator[bytes, None]:
        """The lines of a stage until it is over: the stored log if it was over before anything was told of it."""
        told = 0
        while not self._gateway.live.ending:
            # The job first, the lines after it: once a stage is over, no line of it is missed.
            with contextlib.suppress(EventBusUnavailable):
                self._record = await self._look()
                state = self._record.stages.get(stage)
                if state and state.log and not told:
                    async with aclosing(self._stored(state.log)) as lines:
                        async for line in lines:
                            yield log_event(stage, state.attempt, None, line)
                    return
                async for sequence, written in lines_on(self._gateway, subjects.log(stage, self._record.job_id), told):
                    told = sequence
                    yield log_event(stage, written.attempt, written.at, written.line)
                if not self._record.active or state is None or state.completed_at:
                    return
            if time.monotonic() >= self._spoke_at + HEARTBEAT_S:
                yield HEARTBEAT
            await watch.wait()

    async def _stored(self, log: StoredObject) -> AsyncGenerator[str, None]:
        begun = b""
        async with opened(self._gateway.store, log, self._recheck) as chunks:
            async for chunk in chunks:
                *lines, begun = (begun + chunk).split(b"\n")
                while len(begun) > LINE_MAX_BYTES:
                    lines.append(begun[:LINE_MAX_BYTES])
                    begun = begun[LINE_MAX_BYTES:]
                for line in lines:
                    yield line.decode(errors="replace").rstrip("\r")
        if begun:
            yield begun.decode(errors="replace").rstrip("\r")


def log_event(stage: Stage, attempt: int, at: Timestamp | None, line: str, id_: str | None = None) -> bytes:
    """A line as an event; of a stored line the time is not known."""
    return sse_event("log", {"stage": stage, "attempt": attempt, "at": at, "line": line}, id_)
