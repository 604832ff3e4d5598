"""What the command's exit code says."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Stable: scripts tell by it what to do next."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    NOT_YET = 5
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """In a few words, for a person."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "the job, the file or a check failed",
    ExitCode.USAGE: "wrong usage or configuration",
    ExitCode.UNREACHABLE: "the service or the issuer cannot be reached, or takes no token",
    ExitCode.REFUSED: "the service refused the request",
    ExitCode.NOT_YET: "the job has not ended in time",
    ExitCode.INTERRUPTED: "interrupted",
}
