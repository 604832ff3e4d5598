"""Which keys an artifact may have in the file store."""

from __future__ import annotations

import unicodedata
from urllib.parse import unquote

KEY_MAX_BYTES = 1024
_DECODINGS = 3


class InvalidObjectKey(Exception):
    """`key` cannot be used, because of `why`."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(why)
        self.key, self.why = key, why


def check_object_key(key: str) -> str:
    """`key`, if it names a place below the file store's root, however often somebody on the way decodes it.

    Raises:
        InvalidObjectKey: it does not.
    """
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidObjectKey(key, "it is not Unicode text") from None
    if size > KEY_MAX_BYTES:
        raise InvalidObjectKey(key, f"it has {size} bytes of UTF-8; allowed: at most {KEY_MAX_BYTES}")
    read = key
    for _ in range(_DECODINGS):
        if why := _flaw(read):
            raise InvalidObjectKey(key, why if read == key else f"percent-decoded, {why}")
        read = unquote(read)
    return key


def _flaw(key: str) -> str | None:
    segments = key.split("/")
    flaws = {
        "it is empty": not key,
        "it begins with a slash; allowed: a relative key": key.startswith("/"),
        "it has an empty segment": "" in segments,
        "it has a segment . or ..": ".." in segments or "." in segments,
        "it has a backslash": "\\" in key,
        "it has a control character": any(unicodedata.category(character) == "Cc" for character in key),
    }
    return next((flaw for flaw, found in flaws.items() if found), None)
