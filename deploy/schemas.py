"""Writes `contracts/schemas`: the JSON Schemas of what others read, from the Structs. Run by `make generate`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import msgspec

from converter.contracts.live import LogWritten, ProgressReported
from converter.contracts.messages import PAYLOADS, EventHeaders
from converter.contracts.report import Report

DIRECTORY = Path(__file__).parents[1] / "contracts" / "schemas"
PUBLISHED: dict[str, type] = {
    "report": Report,
    "headers": EventHeaders,
    **PAYLOADS,
    "progress": ProgressReported,
    "log": LogWritten,
}


def schema(type_: type) -> dict[str, Any]:
    """That of `type_`, draft 2020-12, with all that it refers to."""
    described = msgspec.json.schema(type_)
    for definition in described["$defs"].values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described}


def files() -> dict[Path, str]:
    """Every file and its text."""
    return {
        DIRECTORY / f"{name}.schema.json": msgspec.json.format(msgspec.json.encode(schema(type_))).decode() + "\n"
        for name, type_ in PUBLISHED.items()
    }


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for path, text in files().items():
        path.write_text(text)
