"""How the command writes: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter

Row = Sequence[str]
Flag = Annotated[bool, Parameter(negative=())]
"""An option without a `--no-` form."""


@Parameter(name="*")
@dataclass(frozen=True)
class Format:
    """How results are written.

    Args:
        json: Give JSON instead of text.
    """

    json: Flag = False

    def give(self, found: object, lines: Iterable[str]) -> None:
        """Write `found` (JSON values) as JSON, or the `lines` that say the same to a person."""
        if self.json:
            sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        else:
            sys.stdout.writelines(line + "\n" for line in lines)


PLAIN = Format()


def say(sentence: str) -> None:
    """Tell the person who waits, on standard error."""
    sys.stderr.write(shown(sentence) + "\n")


def table(rows: Sequence[Row]) -> Iterable[str]:
    """Columns as wide as their widest cell, but for the last."""
    cells = [[shown(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]) - 1)]
    for row in cells:
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()


def facts(found: dict[str, Any]) -> Iterable[str]:
    """Names and values, one a line; what is not known is left out."""
    rows = [(name, _fact(value)) for name, value in found.items() if value is not None]
    return table(rows) if rows else ()


def shown(text: str) -> str:
    """`text` without what a terminal would obey: names come from strangers' files."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _fact(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
