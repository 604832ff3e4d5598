"""Log lines: one JSON object each, on stdout, whoever wrote them.

    structlog.get_logger().info("stage.completed", attempt=2)
    {"service": "stage-bie", "timestamp": "…", "level": "info", "action": "stage.completed", "attempt": 2, …}

`job_id`, `request_id`, `client_id` and `user_id` come from the context: whoever starts work for a job or a request
binds them with `structlog.contextvars.bound_contextvars`, and every line below says them. Lines of libraries (uvicorn,
asyncio, warnings) keep their sentence as `message` under the action `<library>.message`.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from converter.contracts.job import timestamp

_CREDENTIAL = re.compile(r"\b(Bearer|Basic) +[\w.~+/-]{8,}=*", re.IGNORECASE)
_CHATTY = ("httpx", "httpcore")
"""They tell of every request at INFO, with its whole address."""


def configure(service: str, level: str) -> None:
    """Send every log line of this process, from `level` up, through here. Once in a process, before the first line."""
    threshold = logging.getLevelNamesMapping()[level]

    def stamp(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
        first = {"service": service, "timestamp": timestamp(), "level": line.pop("level"), "action": line.pop("event")}
        return first | dict(line)

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
    ]
    last: list[Processor] = [stamp, _render]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _sentence_as_message],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=threshold, force=True)
    logging.captureWarnings(capture=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))


def _sentence_as_message(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    record: logging.LogRecord = line["_record"]
    library = record.name.partition(".")[0]
    line["message"], line["event"] = line["event"], f"{library}.message"
    return line


def _render(_logger: WrappedLogger, _method: str, line: EventDict) -> str:
    # ASCII alone: text from outside can then neither break a line, nor steer a terminal, nor fail to be written.
    return _CREDENTIAL.sub(r"\1 ***", json.dumps(line, default=_shown))


def _shown(value: Any) -> Any:  # noqa: ANN401 - whatever a caller logs
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)
