"""What a client says of its upload in headers; each that is bad is added to a list of problems."""

from __future__ import annotations

import base64
import binascii
import re

from converter.gateway.endpoints.jobs import ApiRequest
from converter.gateway.http.errors import FieldError
from converter.gateway.http.headers import combined
from converter.gateway.intake.form import base_name
from converter.gateway.uploads import Checksum

ALGORITHMS = {"sha1": "sha1", "sha256": "sha256", "md5": "md5"}
METADATA_MAX_CHARS = 4096
UNNAMED = "model.onnx"
_NUMBER = re.compile(r"[0-9]{1,15}")


def number_in(request: ApiRequest, header: str, problems: list[FieldError]) -> int:
    """The number that the header is; adds to `problems` when it is none."""
    text = combined(request.scope["headers"], header.lower().encode()) or ""
    if _NUMBER.fullmatch(text):
        return int(text)
    problems.append(FieldError(header, "missing or malformed; allowed: a whole number of bytes, once"))
    return 0


def filename_in(text: str, problems: list[FieldError]) -> str:
    """What the client calls its model, in `Upload-Metadata`: pairs of a key and base64, with commas between.

    Adds to `problems` when it cannot be taken.
    """
    pairs = {key: value for key, _, value in (pair.strip().partition(" ") for pair in text.split(","))}
    try:
        if len(text) > METADATA_MAX_CHARS or not text.isascii() or not text.isprintable():
            raise ValueError
        name = base_name(base64.b64decode(pairs.get("filename", ""), validate=True).decode()) or UNNAMED
    except ValueError:
        allowed = f"keys with base64 values, at most {METADATA_MAX_CHARS} characters"
        problems.append(FieldError("Upload-Metadata", f"malformed; allowed: {allowed}"))
        return UNNAMED
    if not name.lower().endswith(".onnx"):
        problems.append(FieldError("Upload-Metadata", "the filename does not end with .onnx"))
    return name


def checksum_in(request: ApiRequest, problems: list[FieldError]) -> Checksum | None:
    """What the bytes are to be verified against, if that is sent; adds to `problems` when it cannot be read."""
    text = combined(request.scope["headers"], b"upload-checksum")
    if text is None:
        return None
    name, _, encoded = text.partition(" ")
    try:
        return Checksum(ALGORITHMS[name], base64.b64decode(encoded, validate=True))
    except (KeyError, binascii.Error):
        allowed = f"one of {', '.join(ALGORITHMS)}, a space, and base64"
        problems.append(FieldError("Upload-Checksum", f"malformed; allowed: {allowed}"))
        return None
