"""Places at which a test ends or freezes the process: `FAILPOINT=before:publish`, `FAILPOINT=before:create:SIGSTOP`.

This reads the environment itself, so that a place costs one call of an empty function where nobody asks for it.
"""

from __future__ import annotations

import os
import signal
from typing import Literal

Moment = Literal["before", "after"]
Place = Literal[
    "pull", "state", "start", "reuse", "fetch", "convert", "store", "publish", "announce", "ack", "create", "remove"
]
_moment, _, _rest = os.environ.get("FAILPOINT", "").partition(":")
_place, _, _signal = _rest.partition(":")


def _hit(moment: Moment, place: Place) -> None:
    if (moment, place) == (_moment, _place):
        os.kill(os.getpid(), signal.Signals[_signal or "SIGKILL"])


def _nothing(moment: Moment, place: Place) -> None:
    """No failpoint is set."""


failpoint = _hit if _moment else _nothing
