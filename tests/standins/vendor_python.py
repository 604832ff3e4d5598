"""An interpreter that has the stand-ins, for tests to name in KNERON_PYTHON."""

from __future__ import annotations

import sys
from pathlib import Path

STANDINS = Path(__file__).parent


def an_interpreter(directory: Path, failure: str = "") -> Path:
    """A Python in `directory` with the stand-ins, in which `failure` happens."""
    python = directory / "python"
    python.write_text(
        f"#!/bin/sh\nexport PYTHONPATH={STANDINS} STANDIN_FAILURE={failure} PYTHONDONTWRITEBYTECODE=1\n"
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    return python
