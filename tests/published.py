"""The committed JSON Schemas, as tests hold real documents to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema_rs import Draft202012Validator

SCHEMAS = Path(__file__).parents[1] / "contracts" / "schemas"


def validator(name: str, part: str | None = None) -> Draft202012Validator:
    """That of the schema `name`, or of one of its parts; a field that the schema does not describe is an error."""
    schema = read(name)
    if part is not None:
        schema["$ref"] = f"#/$defs/{part}"
    return Draft202012Validator(_closed(schema), validate_formats=True)


def as_published(name: str) -> Draft202012Validator:
    """That of the schema `name` as a reader uses it: what it does not describe is left alone."""
    return Draft202012Validator(read(name), validate_formats=True)


def read(name: str) -> dict[str, Any]:
    """The schema `name`."""
    schema: dict[str, Any] = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    return schema


def _closed(schema: object) -> object:
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    return closed | {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else closed
