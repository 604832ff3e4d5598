"""The page's scripts: their types hold, and they make no markup of text."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ASSETS = ROOT / "services/api-gateway/src/converter/gateway/web/assets"
NODE = ROOT / "tests/node"
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|\beval\b"
)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # node is one of our wheels
    return subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=False, cwd=NODE)


def test_types_hold():
    found = run("node_modules/.bin/tsc", "--project", ".")
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("kind", ["js", "css"])
def test_files_are_formatted(kind: str):
    found = run(
        "node_modules/.bin/prettier", "--config", "prettier.json", "--check", *map(str, ASSETS.rglob(f"*.{kind}"))
    )
    assert found.returncode == 0, found.stderr


def test_no_script_makes_markup_of_text():
    scripts = list(ASSETS.rglob("*.js"))
    assert scripts
    assert [script.name for script in scripts if MARKUP.search(script.read_text())] == []
