"""Small JSON bodies that say what to do with a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from litestar import Request

from converter.contracts.job import STAGES, Stage
from converter.gateway.http.errors import FieldError, Refusal, bad_fields
from converter.gateway.http.written import Bad, decoded_object, printable, shown


def require_json(request: Request[Any, Any, Any]) -> None:
    """Look at what the request announces.

    Raises:
        Refusal: `unsupported_media_type`.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal("unsupported_media_type", details={"hint": "Send application/json."})


def read_order(body: bytes, allowed: Sequence[str]) -> tuple[dict[str, Any], list[FieldError]]:
    """The fields of a JSON object, and a problem for each that is not among `allowed`.

    Raises:
        Refusal: `validation_error`; it is no object.
    """
    try:
        given = decoded_object(body.decode())
    except UnicodeDecodeError as error:
        raise bad_fields([FieldError("body", "not UTF-8 text")]) from error
    except Bad as bad:
        raise bad_fields([FieldError("body", message) for message in bad.messages]) from bad
    names = ", ".join(allowed)
    unknown = [FieldError(printable(name), f"unknown; allowed: {names}") for name in given if name not in allowed]
    return given, unknown


def source_in(given: dict[str, Any], problems: list[FieldError]) -> Stage | None:
    """The stage that the field `source` names, if it is there; adds to `problems` when it names none."""
    source = given.get("source")
    if source is None:
        return None
    if source not in list(STAGES):
        problems.append(FieldError("source", f"found {shown(source)}; allowed: {', '.join(STAGES)}"))
        return None
    return Stage(source)
