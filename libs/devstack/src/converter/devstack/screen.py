"""What the demo says while it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text


class Screen:
    """Where the demo writes.

    Args:
        console: a terminal, or a pipe.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, sentence: str) -> None:
        """Something was done."""
        self._console.print(Text.assemble(("✓ ", "green"), sentence), soft_wrap=True)

    def warn(self, sentence: str) -> None:
        """Something happened that should not have to."""
        self._console.print(f"! {sentence}", style="yellow", markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def busy(self, doing: str) -> Iterator[None]:
        """Something takes its time."""
        if self._console.is_terminal:
            with self._console.status(f"{doing} …"):
                yield
        else:
            self._console.print(f"{doing} …", markup=False)
            yield
