"""The messages that former releases sent and that this one still has to understand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parents[1] / "contracts" / "recorded"
LIVE = {"progress", "logs"}


def histories() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each recorded job's name, and its messages: subject, headers, payload."""
    for file in sorted(DIRECTORY.glob("*/*.json")):
        if file.stem not in LIVE:
            yield f"{file.parent.name}-{file.stem}", json.loads(file.read_text())


def live(kind: str) -> list[dict[str, Any]]:
    """What was recorded while stages ran: `progress` or `logs`."""
    return [message for file in sorted(DIRECTORY.glob(f"*/{kind}.json")) for message in json.loads(file.read_text())]
