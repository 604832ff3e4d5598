"""The header of a `.npy` file (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).

BadArray    it is none that can be used; the message continues "the array …"
"""

from __future__ import annotations

import ast
import re

NPY_MAGIC = b"\x93NUMPY"
HEADER_MAX_BYTES = 4096
"""Headers of plain arrays have 118 bytes; long ones describe records."""
RANK_MAX = 8
_KEYS = {"descr", "fortran_order", "shape"}
_NUMBERS = re.compile(r"[<>|=]([fiub])(1|2|4|8)")
_LONG_NUMBER = re.compile(rb"\b[0-9][0-9A-Za-z_]{19}")
"""No size is that long, and Python cannot write some that it reads (`int` in hexadecimal digits)."""


class BadArray(Exception):
    """The file is no array of plain numbers."""


def check_npy(head: bytes, size_bytes: int) -> None:
    """Check the file that begins with `head` (at least `HEADER_MAX_BYTES`, or all of it) and has `size_bytes`.

    Raises:
        BadArray: damaged, cut off, or of something else than numbers; Python objects would need pickle to be read.
    """
    length_bytes = 2 if head[6:7] == b"\x01" else 4
    start = 8 + length_bytes
    if not head.startswith(NPY_MAGIC) or head[6:7] not in {b"\x01", b"\x02", b"\x03"} or len(head) < start:
        raise BadArray("has no NumPy header")
    length = int.from_bytes(head[8:start], "little")
    if start + length > HEADER_MAX_BYTES:
        raise BadArray(f"has a header of {length} bytes; allowed: arrays of plain numbers")
    header = _decoded(head[start : start + length], length)
    shape, descr = header["shape"], header["descr"]
    number = _NUMBERS.fullmatch(descr) if isinstance(descr, str) else None
    if number is None:
        raise BadArray(f"holds {str(descr)[:40]!r}; allowed: integers, floats and booleans of up to 8 bytes")
    if not isinstance(shape, tuple) or len(shape) > RANK_MAX or not all(type(n) is int and n > 0 for n in shape):
        raise BadArray(f"has the shape {str(shape)[:60]}; allowed: up to {RANK_MAX} dimensions from 1")
    expected = start + length + int(number[2])
    for size in shape:
        expected = start + length + (expected - start - length) * size
    if expected != size_bytes:
        raise BadArray(f"has {size_bytes} bytes; its header announces {expected}")


def _decoded(text: bytes, length: int) -> dict[str, object]:
    """The literal that the header is; nothing of it is executed."""
    if len(text) < length:
        raise BadArray("is cut off in its header")
    if _LONG_NUMBER.search(text):
        raise BadArray("has a size in its header that no array has")
    try:
        header = ast.literal_eval(text.decode("utf-8").strip())
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise BadArray("has a damaged header") from error
    if not isinstance(header, dict) or set(header) != _KEYS:
        raise BadArray("has a damaged header")
    return header
