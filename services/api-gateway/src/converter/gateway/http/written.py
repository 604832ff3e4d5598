"""Values as a client wrote them: JSON and numbers, and how to quote them back."""

from __future__ import annotations

import json
import math
from typing import Any

SHOWN_MAX_CHARS = 60


class Bad(Exception):
    """A value that cannot be taken; every message says what was found and what is allowed."""

    def __init__(self, *messages: str) -> None:
        super().__init__(*messages)
        self.messages = messages


def shown(value: object) -> str:
    """Text in quotes and all else as JSON, short enough for an error message and free of control characters."""
    quote, text = ('"', value) if isinstance(value, str) else ("", json.dumps(value, ensure_ascii=False))
    return f"{quote}{printable(text[:SHOWN_MAX_CHARS])}{'…' if len(text) > SHOWN_MAX_CHARS else ''}{quote}"


def printable(text: str, instead: str = "\ufffd") -> str:
    """`text` with `instead` for every control character and everything else that is not seen."""
    return "".join(character if character.isprintable() else instead for character in text)


def decoded_object(text: str) -> dict[str, Any]:
    """The JSON object that `text` is. A key that stands twice is refused: readers would differ on which one counts.

    Raises:
        Bad: it is none.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unambiguous, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Bad(f"found {shown(text)}, which is not JSON ({shown(str(error))}); allowed: a JSON object") from error
    if not isinstance(value, dict):
        raise Bad(f"found {shown(text)}; allowed: a JSON object")
    return value


def number(key: str, value: object) -> float:
    """`value` as a finite number.

    Raises:
        Bad: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Bad(f"{key}: found {shown(value)}; allowed: a number")
    return float(value)


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise ValueError("a key stands twice")
    return read


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")
