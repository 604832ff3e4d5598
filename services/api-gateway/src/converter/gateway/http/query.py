"""The query of a URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl

from converter.gateway.http.errors import FieldError
from converter.gateway.http.written import printable, shown


def read_query(query_string: bytes, allowed: Sequence[str]) -> tuple[dict[str, str], list[FieldError]]:
    """The parameters, and a problem for each that is not among `allowed` or that stands more than once."""
    pairs = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True)
    given, problems = dict(pairs), []
    for name in given:
        if name not in allowed:
            problems.append(FieldError(printable(name), f"unknown; allowed: {', '.join(allowed)}"))
        elif sum(other == name for other, _ in pairs) > 1:
            problems.append(FieldError(name, "sent more than once; allowed: once"))
    return given, problems


def flag_in(given: Mapping[str, str], name: str, problems: list[FieldError]) -> bool:
    """The parameter `name`, false where it is left out; adds to `problems` when it is no boolean."""
    text = given.get(name, "false")
    if text not in {"true", "false"}:
        problems.append(FieldError(name, f"found {shown(text)}; allowed: true, false"))
    return text == "true"
