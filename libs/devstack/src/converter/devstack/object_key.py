"""The keys that the file store takes: relative paths that mean the same to everybody who reads them."""

from __future__ import annotations

import unicodedata
from urllib.parse import unquote, unquote_to_bytes

MAX_BYTES = 1024
MAX_SEGMENT_BYTES = 255
"""A segment is a file's name on the store's disk."""
_DECODINGS = 4


class BadKey(ValueError):
    """This is no key; the text says why."""


def object_key(raw: bytes) -> str:
    """The key that a request's path, as sent, holds behind `/files/`.

    What would become a bad key if somebody decoded it once more, or normalised its characters, is bad too: the store
    may stand behind a proxy, and its disk may be anybody's.

    Raises:
        BadKey: not a relative path, or not UTF-8.
    """
    try:
        key = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise BadKey("the key is not UTF-8") from error
    if len(key.encode()) > MAX_BYTES:
        raise BadKey(f"the key is longer than {MAX_BYTES} bytes")
    reading = key
    for _ in range(_DECODINGS):
        _check(reading)
        _check(unicodedata.normalize("NFKC", reading))
        reading = unquote(reading)
    return key


def _check(key: str) -> None:
    if any(unicodedata.category(character) in {"Cc", "Cs"} or character == "\\" for character in key):
        raise BadKey("the key holds a control character or a backslash")
    for segment in key.split("/"):
        if segment in {"", ".", ".."}:
            raise BadKey(f"the key has a segment {segment!r}")
        if len(segment.encode()) > MAX_SEGMENT_BYTES:
            raise BadKey(f"the key has a segment longer than {MAX_SEGMENT_BYTES} bytes")
