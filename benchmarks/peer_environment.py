"""The environments of peers: `.peers/NAME` is a copy of `peers/NAME` with what that asks for installed.

`peers/NAME` holds a program and what it needs, pinned with hashes: `requirements.lock` for Python, `package.json` and
`package-lock.json` for Node. The package managers are those of this environment.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent
INSTALLED = "installed.sha256"


def installed(name: str) -> Path:
    """`.peers/NAME`, made anew when anything in `peers/NAME` has changed.

    Raises:
        CalledProcessError: a package manager failed; what it says is on stderr.
    """
    source, home = BENCHMARKS / "peers" / name, BENCHMARKS / ".peers" / name
    tree = _digest(source)
    if (home / INSTALLED).exists() and (home / INSTALLED).read_text() == tree:
        return home
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(source, home)
    if (home / "requirements.lock").exists():
        _run("uv", "venv", "--quiet", "--python", sys.executable, ".venv", home=home)
        into = ("--python", ".venv/bin/python")
        _run("uv", "pip", "install", "--quiet", *into, "--require-hashes", "-r", "requirements.lock", home=home)
    if (home / "package-lock.json").exists():
        _run("npm", "ci", "--silent", home=home)
    (home / INSTALLED).write_text(tree)
    return home


def _run(program: str, *arguments: str, home: Path) -> None:
    programs = Path(sys.executable).parent
    environ = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([programs / program, *arguments], cwd=home, env=environ, check=True, stdout=subprocess.DEVNULL)


def _digest(directory: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(directory)} {len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()
