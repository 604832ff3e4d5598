"""The service's side: orders conversions, listens to them, and says how they ended."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from io import FileIO
from typing import Any, Self

from msgspec import MsgspecError

from converter.common.conversion import ConversionTask, Progress
from converter.common.isolation.messages import Advanced, Confined, Ended, Word, decode_word
from converter.common.isolation.outcomes import Cancelled, Confinement, Limits, Outcome
from converter.common.isolation.stage_log import CHUNK_BYTES, StageLog
from converter.common.isolation.verdict import Heard, outcome
from converter.common.isolation.warden_process import OBEY_S, ConvertersUnavailable, Underway, WardenProcess
from converter.contracts.report.stage import Run

__all__ = ["ConvertersUnavailable", "Isolation"]

WORD_BYTES = 16 << 20
"""The longest word that is listened to: a conversion's whole report is one."""
DRAIN_S = 2.0
"""How long a pipe may stay open once every process that the warden knew of is dead."""


class Isolation:
    """Runs converters, each in a process of its own, while the context is open.

    Args:
        preload: modules to import once, so that a conversion starts in milliseconds.
        confinement: what converters may reach.

    Raises:
        ConvertersUnavailable: a module to preload cannot be imported (on entering, or when a warden that died is
            replaced).
    """

    def __init__(self, *, preload: Sequence[str] = (), confinement: Confinement | None = None) -> None:
        self._preload, self._confinement = tuple(preload), confinement or Confinement()
        self._warden: WardenProcess | None = None
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._living_warden()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._warden:
            await self._warden.close()

    async def run(
        self,
        converter: str,
        task: ConversionTask,
        limits: Limits,
        *,
        on_progress: Progress,
        on_log_line: Callable[[str], None] | None = None,
        cancel: asyncio.Event,
    ) -> Outcome:
        """Do `task` with `converter` ("package.module:function"), and say how it ended.

        When `cancel` is set, or the caller is cancelled, the conversion's processes are killed at once. None of them
        is left when this returns or raises. The log is in `task.workdir`/stage.log, however it ended.

        Raises:
            ConvertersUnavailable: see the class.
            OSError: no log, pipe or process can be made.
        """
        if cancel.is_set():
            return Cancelled(Run())
        warden = await self._living_warden()
        heard = Heard()
        with StageLog(task.workdir, limits.log_bytes, on_log_line) as log:
            async with _pipe(WORD_BYTES) as (report, report_end), _pipe(CHUNK_BYTES) as (output, output_end):
                with report_end, output_end:
                    underway = warden.begin(converter, task, limits, report_end.fileno(), output_end.fileno())
                listening = _listening(underway, _listen(report, heard, on_progress), log.copy(output))
                try:
                    await _first_of(underway.ended, cancel, within_s=limits.timeout_s + OBEY_S)
                finally:
                    end = await underway.end()
                    await _drain(listening)
            task.workdir.chmod(0o700)  # the converter may have locked its directory
            log.finish()
        heard.last_lines = log.tail
        for listener in listening:
            _take_up(listener, heard)
        return outcome(end, heard, limits, task.workdir)

    async def _living_warden(self) -> WardenProcess:
        async with self._starting:
            if self._warden and not self._warden.alive:
                await self._warden.close()
                self._warden = None
            if not self._warden:
                self._warden = await WardenProcess.start(self._preload, self._confinement)
            return self._warden


class _BrokenWordError(Exception):
    """What the converter's process said is no word, or not in its place."""


async def _listen(report: asyncio.StreamReader, heard: Heard, on_progress: Progress) -> None:
    """Hear the words of a converter until its process has closed its end."""
    while line := await _line(report):
        try:
            word: Word = decode_word(line)
        except (MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _BrokenWordError(f"it sent what is no message ({error})") from error
        match word:
            case Confined(obtained) if heard.obtained is None:
                heard.obtained = obtained
            case _ if heard.obtained is None or heard.result is not None or isinstance(word, Confined):
                raise _BrokenWordError("it sent a message out of its order")
            case Advanced(fraction, activity):
                on_progress(fraction, activity)
            case result:
                heard.result = result


async def _line(report: asyncio.StreamReader) -> bytes:
    """The next whole line; nothing at the end, or where the process ended in the middle of one."""
    try:
        return await report.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return b""
    except asyncio.LimitOverrunError as error:
        raise _BrokenWordError(f"it sent a message of more than {WORD_BYTES} bytes") from error


def _listening(underway: Underway, *listeners: Coroutine[None, None, None]) -> list[asyncio.Task[None]]:
    async def listen(listener: Coroutine[None, None, None]) -> None:
        try:
            await listener
        except BaseException:
            underway.stop()  # a converter that nobody listens to would wait for ever
            raise

    return [asyncio.create_task(listen(listener)) for listener in listeners]


async def _first_of(ended: asyncio.Future[Ended], cancel: asyncio.Event, *, within_s: float) -> None:
    """Wait until it has ended or is to be ended, but not for a warden that has forgotten the time."""
    cancelled = asyncio.create_task(cancel.wait())
    either: set[asyncio.Future[Any]] = {ended, cancelled}
    try:
        await asyncio.wait(either, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        cancelled.cancel()


async def _drain(listening: list[asyncio.Task[None]]) -> None:
    """Hear the rest of what was said."""
    _, late = await asyncio.wait(listening, timeout=DRAIN_S)
    for listener in late:
        listener.cancel()
    if late:
        await asyncio.wait(late)


def _take_up(listener: asyncio.Task[None], heard: Heard) -> None:
    """Raises what a callback of the caller raised."""
    try:
        listener.result()
    except _BrokenWordError as broken:
        heard.broken = str(broken)
    except asyncio.CancelledError:
        heard.broken = "a process that it started escaped"


@asynccontextmanager
async def _pipe(limit_bytes: int) -> AsyncIterator[tuple[asyncio.StreamReader, FileIO]]:
    """A pipe: the end to read, and the one to give away."""
    read_end, write_end = (FileIO(end, mode) for end, mode in zip(os.pipe(), ("r", "w"), strict=True))
    reader = asyncio.StreamReader(limit=limit_bytes)
    with write_end:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), read_end
        )
        try:
            yield reader, write_end
        finally:
            transport.close()
