"""A script that is asked what it does says so, and does not begin with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("script", ["benchmarks/capacity.py", "deploy/audit.py", "deploy/nginx_conf.py"])
def test_help_is_the_scripts_own_words(script: str):
    command = [sys.executable, str(ROOT / script), "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    first = (ROOT / script).read_text().splitlines()[0].strip('"')
    assert first in said.stdout
    assert said.stdout.startswith("usage:")
