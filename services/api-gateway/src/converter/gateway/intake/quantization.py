"""Reads the field `quantization`: JSON with keywords of `converter.contracts.quantization`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from converter.contracts.quantization import (
    KEYWORDS,
    Between,
    ByNode,
    Keyword,
    OneOf,
    conflicts,
    conflicts_with_platform,
)
from converter.gateway.http.written import Bad, decoded_object, number, shown

TEXT_MAX_CHARS = 16 * 1024
"""The keywords travel in every event of the job, which must stay small."""


def check_quantization(text: str) -> dict[str, Any]:
    """The keywords in the JSON object `text`, as given; what is left out is the toolchain's choice.

    Raises:
        Bad: it is no object, a keyword or a value is unknown, or two of them do not go together.
    """
    if len(text) > TEXT_MAX_CHARS:
        raise Bad(f"found {len(text)} characters; allowed: at most {TEXT_MAX_CHARS}")
    given = decoded_object(text)
    problems = [f"unknown key {shown(key)}; allowed: {', '.join(KEYWORDS)}" for key in given if key not in KEYWORDS]
    for key, value in given.items():
        if keyword := KEYWORDS.get(key):
            try:
                _check(key, value, keyword)
            except Bad as bad:
                problems += bad.messages
    problems = problems or list(conflicts(given))
    if problems:
        raise Bad(*problems)
    return given


def check_with_platform(given: dict[str, Any], platform: str) -> Sequence[str]:
    """What the chip does not allow of valid keywords."""
    return list(conflicts_with_platform(given, platform))


def _check(key: str, value: object, keyword: Keyword) -> None:
    match keyword.allowed:
        case OneOf(choices):
            if not any(type(value) is type(choice) and value == choice for choice in choices):
                raise Bad(f"{key}: found {shown(value)}; allowed: {', '.join(str(choice) for choice in choices)}")
        case Between(least, most):
            if not least <= number(key, value) <= most:
                raise Bad(f"{key}: found {shown(value)}; allowed: {least:g} to {most:g}")
        case ByNode():
            if not isinstance(value, dict):
                raise Bad(f"{key}: found {shown(value)}; allowed: an object, bit widths by node name")
