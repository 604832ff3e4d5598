"""Runs a converter in a process of its own, which can hurt nobody and can always be ended.

    service  --(orders)-->  warden  --(fork)-->  converter      one process and process group for each conversion
       ^                      |                      |
       |<-----(notices)-------+                      |
       |<-----(what it says, and its log)------------+

The `warden` has imported the converter's modules and forks in milliseconds. It watches time and memory, kills, and
buries. The forked process confines itself (`child`, `landlock`, `seccomp`) before it touches a model. Nothing that it
says is trusted: JSON within bounds, or the attempt has crashed (`messages`).

`Isolation` is the service's side, `outcomes` are the ways in which a conversion ends.

    ConvertersUnavailable    the warden could not import what it was to preload
"""

from converter.common.isolation.driver import ConvertersUnavailable, Isolation
from converter.common.isolation.outcomes import (
    Cancelled,
    Confinement,
    Converted,
    Crashed,
    Failed,
    Limits,
    Outcome,
    OutOfMemory,
    Refused,
    TimedOut,
    failure,
)
from converter.contracts.report.stage import Obtained, Run

__all__ = [
    "Cancelled",
    "Confinement",
    "Converted",
    "ConvertersUnavailable",
    "Crashed",
    "Failed",
    "Isolation",
    "Limits",
    "Obtained",
    "OutOfMemory",
    "Outcome",
    "Refused",
    "Run",
    "TimedOut",
    "failure",
]
