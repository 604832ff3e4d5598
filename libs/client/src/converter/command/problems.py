"""What went wrong, as lines for a person, and an exit code and facts for a script."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

from converter.command.codes import ExitCode


class Problem(Exception):
    """Something that the command itself found; told as it is. `answered`: its result is on standard output already."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED, *, answered: bool = False) -> None:
        super().__init__(message)
        self.code, self.answered = code, answered


@dataclass(frozen=True)
class Told:
    """A problem, told."""

    code: ExitCode
    lines: list[str]
    facts: dict[str, Any] = field(default_factory=dict)
    """What programs want to know, `code` and `message` at least; empty where the exit code and the lines say all."""
    answered: bool = False
    """Whether the command has given its result, so that a script finds one JSON text and not two."""


@singledispatch
def told(problem: Exception) -> Told | None:  # noqa: ARG001 - nothing is known of it
    """How `problem` is told; not at all where nobody expected it. Modules register what their commands may raise."""
    return None


@told.register
def _(problem: Problem) -> Told:
    return Told(problem.code, str(problem).splitlines(), answered=problem.answered)


@told.register
def _(problem: OSError) -> Told:
    return Told(ExitCode.FAILED, [f"{problem.filename}: {problem.strerror}" if problem.filename else str(problem)])
