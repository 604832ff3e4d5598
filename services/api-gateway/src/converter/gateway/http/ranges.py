"""Which part of a file a request wants (RFC 9110 section 14), and under which name it is saved (RFC 6266)."""

from __future__ import annotations

import re
from urllib.parse import quote

from converter.common.storage import ByteRange

_RANGE = re.compile(r"bytes=\s*(\d{0,19})-(\d{0,19})\s*", re.IGNORECASE | re.ASCII)
FILENAME_MAX_CHARS = 150
_ATTR_CHARS = "!#$&+-.^_`|~"
"""What RFC 8187 leaves unencoded, letters and digits aside."""


class Unsatisfiable(Exception):
    """The file ends before the range begins; it has `size_bytes`."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"no such bytes in {size_bytes}")
        self.size_bytes = size_bytes


def wanted_range(header: str | None, if_range: str | None, *, tag: str, size_bytes: int) -> ByteRange | None:
    """The range of a file with the entity tag `tag` that a request wants; none for the whole.

    Several ranges at once, another unit and what cannot be read are answered with the whole, which the RFC allows. So
    is a range under an `If-Range` that does not name just this file (a date never does: there is no Last-Modified).

    Raises:
        Unsatisfiable: there is nothing in the range.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None or (if_range is not None and if_range.strip() != tag):
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        begin, end = max(size_bytes - int(last), 0), size_bytes - 1
    else:
        begin, end = int(first), min(int(last), size_bytes - 1) if last else size_bytes - 1
        if last and int(last) < begin:
            return None
    if begin > end:
        raise Unsatisfiable(size_bytes)
    return ByteRange(begin, end)


def attachment(filename: str) -> str:
    """The value of Content-Disposition that saves a file as `filename`, and never anywhere else than the client chose.

    Every client finds a name in plain ASCII without anything that could end the quotes; one that knows RFC 8187 finds
    the whole name. What is no character, a path or a hidden file is in neither.
    """
    name = re.sub(r"[\\/:*?\"<>|]", "_", "".join(c if c.isprintable() else "_" for c in filename))
    name = name[-FILENAME_MAX_CHARS:].lstrip(". ") or "artifact"
    plain = re.sub(r"[^A-Za-z0-9._ +@=-]", "_", name)
    if plain == name:
        return f'attachment; filename="{plain}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe=_ATTR_CHARS, errors='replace')}"
