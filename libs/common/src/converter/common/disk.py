"""What the errors of a disk mean."""

from __future__ import annotations

import errno

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""There is no room on the disk, or within the user's quota of it."""


def is_full(fault: OSError) -> bool:
    """Whether there was no room."""
    return fault.errno in FULL
