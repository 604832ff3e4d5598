"""Which keys an artifact may have in the file store."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote

from converter.contracts.job import TARGET_OBJECT_KEY_MAX_BYTES

_DECODINGS = 3
_OTHER_ESCAPE = re.compile("%u[0-9a-fA-F]{4}")
"""What some servers decode beside RFC 3986: `%u002e` is a dot to them."""


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
    if size > TARGET_OBJECT_KEY_MAX_BYTES:
        raise InvalidObjectKey(key, f"it has {size} bytes of UTF-8; allowed: at most {TARGET_OBJECT_KEY_MAX_BYTES}")
    read = key
    for _ in range(_DECODINGS + 1):
        # Compatible forms too: a full-width dot or slash is a plain one to whoever normalises names (NFKC).
        if why := _flaw(read) or _flaw(unicodedata.normalize("NFKC", read)):
            raise InvalidObjectKey(key, why if read == key else f"percent-decoded, {why}")
        try:
            read = unquote(read, errors="strict")
        except UnicodeDecodeError:  # overlong forms among it: %c0%ae is a dot to a lax decoder
            raise InvalidObjectKey(key, "percent-decoded, it is not UTF-8") from None
    return key


def _flaw(key: str) -> str | None:
    segments = key.split("/")
    flaws = {
        "it is empty": not key,
        "it begins with a slash; allowed: a relative key": key.startswith("/"),
        "it has an empty segment": "" in segments,
        "it has a segment . or ..": ".." in segments or "." in segments,
        "it has a backslash": "\\" in key,
        "it has an escape of the form %uXXXX": bool(_OTHER_ESCAPE.search(key)),
        "it has a control character": any(unicodedata.category(character) == "Cc" for character in key),
    }
    return next((flaw for flaw, found in flaws.items() if found), None)
