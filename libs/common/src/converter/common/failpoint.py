"""Places at which a test ends the process, as a power cut would: `FAILPOINT=before:publish`.

This reads the environment itself, so that a place costs one call of an empty function where nobody asks for it.
"""

from __future__ import annotations

import os
import signal
from typing import Literal

Place = Literal["pull", "state", "start", "fetch", "convert", "store", "publish", "announce", "ack"]
_WANTED = os.environ.get("FAILPOINT", "")


def _die_here(moment: Literal["before", "after"], place: Place) -> None:
    if f"{moment}:{place}" == _WANTED:
        os.kill(os.getpid(), signal.SIGKILL)


def _nothing(moment: Literal["before", "after"], place: Place) -> None:
    """No failpoint is set."""


failpoint = _die_here if _WANTED else _nothing
