"""The command `converter`: has models converted, looks after the jobs, and looks into files.

Results go to standard output, as JSON with `--json`; progress and problems go to standard error. Exit codes are those
of `converter.command.codes`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from converter.command.codes import ExitCode


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in `arguments` (those of the process by default).

    Returns:
        Its exit code.
    """
    try:
        # Imported here, since that takes longest, and Ctrl-C meanwhile is told in the same words.
        from converter.command.application import run  # noqa: PLC0415 - see above

        return run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        sys.stderr.write("converter: interrupted\n")
        return ExitCode.INTERRUPTED
