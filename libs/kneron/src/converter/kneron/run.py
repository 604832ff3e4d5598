"""Starts the driver under the vendor's Python, listens to it, and turns how it ended into an answer or a refusal.

What the driver says has passed through the vendor's programs, which read the client's model: it is decoded into the
types below and nothing else, within bounds.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import msgspec
from msgspec import Struct

from converter.common.conversion import ConversionRefused, Progress
from converter.kneron import known_failures
from converter.kneron.deployment import DRIVER, Deployment

_MOST_WORD_BYTES = 4 << 20
_MOST_LINE_BYTES = 4096
_LONGEST_ACTIVITY = 200
_READER_LEAVES_S = 10.0
_EXIT_OF_SIGNAL = 128
_ENGINE_FAILED, _NOT_EXECUTABLE, _NOT_FOUND = 125, 126, 127
"""How `docker run` leaves, where it is not the container's own status."""
_CRASHES = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)


class Result(Struct, frozen=True, kw_only=True):
    """What a step made; its files are in the job's directory, under the names of the request."""

    version: str = ""
    evaluation: str = ""
    bie_name: str = ""
    nef_name: str = ""
    not_compared: str | None = None


class Failed(Struct, frozen=True, kw_only=True):
    """What was raised in a step."""

    step: str
    error: str


class _Word(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    progress: tuple[float, str] | None = None
    result: Result | None = None
    failed: Failed | None = None


def run_step(deployment: Deployment, job: Path, request: Mapping[str, Any], progress: Progress) -> Result:
    """Do the step that `request` names, in `job`, which has its files. What the toolchain prints is printed here.

    Raises:
        ConversionRefused: the toolchain failed (see `known_failures`), or `toolchain_unavailable`.
        MemoryError: it was killed for want of memory.
    """
    shutil.copyfile(Path(__file__).with_name(DRIVER), job / DRIVER)
    try:
        process = subprocess.Popen(
            deployment.command(job),
            cwd=job,
            env=deployment.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        raise ConversionRefused(
            "toolchain_unavailable", f"{deployment.where} cannot be started", evidence=str(error)[:300]
        ) from error
    return _Conversation(process, deployment).hold(request, progress)


class _Conversation:
    """One request to one driver, and its answer."""

    def __init__(self, process: subprocess.Popen[bytes], deployment: Deployment) -> None:
        self._process, self._deployment = process, deployment
        self._log = known_failures.Log()

    def hold(self, request: Mapping[str, Any], progress: Progress) -> Result:
        stdin, stdout, stderr = _pipes(self._process)
        copier = threading.Thread(target=self._copy_log, args=(stderr,), daemon=True)
        copier.start()
        try:
            answer, broken = self._listen(request, stdin, stdout, progress)
        except BaseException:
            self._process.kill()
            raise
        finally:
            # Its standard input stays open until it has answered: the driver leaves when it ends.
            with contextlib.suppress(BrokenPipeError):  # it left before it had read all
                stdin.close()
            stdout.close()
            status = self._process.wait()
            copier.join(_READER_LEAVES_S)
        if isinstance(answer, Result):
            return answer
        if answer:
            raise known_failures.refusal(answer.step, answer.error, self._log)
        raise self._no_answer(status, broken)

    def _listen(
        self, request: Mapping[str, Any], stdin: IO[bytes], stdout: IO[bytes], progress: Progress
    ) -> tuple[Result | Failed | None, str]:
        """The driver's answer; or none, and what it said that is no word, if it did."""
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            return None, ""
        while line := stdout.readline(_MOST_WORD_BYTES):
            try:
                word = msgspec.json.decode(line, type=_Word)
            except msgspec.MsgspecError as error:
                self._process.kill()
                return None, str(error)
            if word.progress:
                progress(word.progress[0], word.progress[1][:_LONGEST_ACTIVITY])
            if answer := word.result or word.failed:
                return answer, ""
        return None, ""

    def _copy_log(self, stderr: IO[bytes]) -> None:
        with stderr:
            while line := stderr.readline(_MOST_LINE_BYTES):
                text = line.decode(errors="replace").rstrip()
                self._log.add(text)
                print(text, flush=True)  # noqa: T201 - a converter's standard output is its stage's log

    def _no_answer(self, status: int, broken: str) -> Exception:
        if broken:
            return ConversionRefused("toolchain_aborted", f"the toolchain's driver said what is no answer: {broken}")
        number = -status if status < 0 else status - _EXIT_OF_SIGNAL
        if number == signal.SIGKILL:
            return MemoryError(f"{self._deployment.where} was killed")
        if number in _CRASHES:
            name = signal.Signals(number).name
            return ConversionRefused(
                "toolchain_aborted", f"the toolchain died of {name}", evidence=self._log.evidence()
            )
        where = self._deployment.where
        what = "cannot be started" if status in {_ENGINE_FAILED, _NOT_EXECUTABLE, _NOT_FOUND} else "gave no answer"
        return ConversionRefused(
            "toolchain_unavailable", f"{where} {what} (status {status})", evidence=self._log.evidence()
        )


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise ValueError("the process was started without pipes")
    return process.stdin, process.stdout, process.stderr
