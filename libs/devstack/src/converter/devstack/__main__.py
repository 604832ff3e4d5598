"""The development stack's commands.

    python -m converter.devstack up [--workers onnx=1,bie=2]
    python -m converter.devstack demo [--model FILE] [--images DIR]

Ctrl-C, SIGTERM or a closed terminal take everything down in order; a second one at once.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command that the arguments name; the exit code."""
    try:
        # Within, so that Ctrl-C shows no traceback while this is being imported, which takes longest.
        from converter.devstack import commands  # noqa: PLC0415 - see above

        return commands.main()
    except KeyboardInterrupt:  # later ones are signals to `commands`
        return 130


if __name__ == "__main__":
    sys.exit(main())
