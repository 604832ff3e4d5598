"""What a bucket's key says. What is nothing of ours there counts as absent: it must not stop who comes after it."""

from __future__ import annotations

from typing import TypeVar

import msgspec
import structlog

from converter.common.bus import StoredMessage

log = structlog.get_logger()

T = TypeVar("T")


def entry_in(found: StoredMessage | None, shape: type[T]) -> T | None:
    """The entry, or none where there is no key, it was taken away, or it is no entry, which the log then says."""
    if found is None or not found.data:
        return None
    try:
        return msgspec.json.decode(found.data, type=shape)
    except msgspec.MsgspecError as error:
        log.error("entry.unreadable", key=found.subject, sequence=found.sequence, error=str(error))
        return None
