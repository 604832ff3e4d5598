"""What the errors of a disk mean."""

from __future__ import annotations

import errno
import tempfile

_PROBE = bytes(64 << 10)

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""There is no room on the disk, or within the user's quota of it."""


def is_full(fault: OSError) -> bool:
    """Whether there was no room."""
    return fault.errno in FULL


def has_room() -> bool:
    """Whether a small file can be written where temporary files go, which is a conversion's own directory."""
    try:
        with tempfile.TemporaryFile(buffering=0) as probe:
            probe.write(_PROBE)
    except OSError as fault:
        return not is_full(fault)
    return True
