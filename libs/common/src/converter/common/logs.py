"""Log lines: one JSON object each, on stdout, whoever wrote them.

    structlog.get_logger().info("stage.completed", attempt=2)
    {"service": "stage-bie", "timestamp": "…", "level": "info", "action": "stage.completed", "attempt": 2, …}

`job_id`, `request_id`, `client_id` and `user_id` come from the context: whoever starts work for a job or a request
binds them with `structlog.contextvars.bound_contextvars`, and every line below says them. Lines of libraries (uvicorn,
asyncio, warnings) keep their sentence as `message` under the action `<library>.message`.

Each line is written at once, but for those of `often`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import sys
from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from converter.common import tracing
from converter.contracts.job import timestamp

_CREDENTIAL = re.compile(r"\b(Bearer|Basic) +[\w.~+/-]{8,}=*", re.IGNORECASE)
_CHATTY = ("httpx", "httpcore")
"""They tell of every request at INFO, with its whole address."""
HELD_S = 0.005
_NOTHING = logging.CRITICAL + 1


class _Output:
    """Where lines go, from which level up, and in whose name."""

    def __init__(self) -> None:
        self.service, self.threshold, self.stream = "", _NOTHING, sys.stdout
        self._held: deque[str] = deque()

    def write(self, text: str) -> None:
        """Write what is held, and `text`."""
        lines = []
        with contextlib.suppress(IndexError):
            while True:  # one by one: another thread may do the same
                lines.append(self._held.popleft())
        self.stream.write("".join([*lines, text]))
        self.stream.flush()

    def flush(self) -> None:
        """Write what is held."""
        if self._held:
            self.write("")

    def hold(self, line: str) -> None:
        """Write `line` a moment later."""
        self._held.append(f"{line}\n")
        if len(self._held) == 1:
            asyncio.get_running_loop().call_later(HELD_S, self.flush)


_output = _Output()


def configure(service: str, level: str) -> None:
    """Send every log line of this process, from `level` up, through here. Once in a process, before the first line."""
    threshold = logging.getLevelNamesMapping()[level]
    _output.service, _output.threshold, _output.stream = service, threshold, sys.stdout
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, _rendered],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(_output),  # type: ignore[arg-type]  # it writes and flushes: all that is asked
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _sentence_as_message],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _rendered],
        )
    )
    logging.basicConfig(handlers=[handler], level=threshold, force=True)
    logging.captureWarnings(capture=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))


def often(action: str, **facts: object) -> None:
    """A line at INFO of what happens so often that its lines would cost more than what they tell of.

    They are written together, up to `HELD_S` later or with the next other line, and skip structlog; a process that is
    killed takes those of its last moment with it. Only on the event loop.
    """
    if _output.threshold <= logging.INFO:
        _output.hold(_line("info", action, structlog.contextvars.get_contextvars() | facts))


def _sentence_as_message(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    record: logging.LogRecord = line["_record"]
    library = record.name.partition(".")[0]
    line["message"], line["event"] = line["event"], f"{library}.message"
    return line


def _rendered(_logger: WrappedLogger, _method: str, line: EventDict) -> str:
    return _line(line.pop("level"), line.pop("event"), line)


def _line(level: str, action: str, facts: Mapping[str, object]) -> str:
    line: dict[str, object] = {"service": _output.service, "timestamp": timestamp(), "level": level, "action": action}
    if traced := tracing.trace_id():
        line["trace_id"] = traced
    line.update(facts)
    # ASCII alone: text from outside can then neither break a line, nor steer a terminal, nor fail to be written.
    try:
        text = _ascii.encode(line).decode("ascii")
    except UnicodeError:
        text = json.dumps(line, default=_shown, separators=(",", ":"))
    lowered = text.lower()
    return _CREDENTIAL.sub(r"\1 ***", text) if "bearer " in lowered or "basic " in lowered else text


def _shown(value: Any) -> Any:  # noqa: ANN401 - whatever a caller logs
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)


_ascii = msgspec.json.Encoder(enc_hook=_shown)
"""Several times quicker than `json`, for a line that is all ASCII; every request writes one."""
