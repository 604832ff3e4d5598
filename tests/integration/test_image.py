"""The image's recipe, as far as it goes without Docker: its own steps, on what they are given and nothing else."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

from converter.devstack.services import SERVICES

ROOT = Path(__file__).parents[2]
RECIPE = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
OURS = "converter-"
MAKES_OURS, MAKES_OTHERS = "--no-deps", "--require-hashes"


def step(option: str) -> list[str]:
    """The words of the one step that installs with `option`."""
    [line] = [line for line in RECIPE.splitlines() if line.startswith("RUN uv pip install") and option in line]
    return shlex.split(line.removeprefix("RUN "))


def copied() -> dict[str, str]:
    """Where each thing of the repository lies while the image is built."""
    copies = (line.split()[1:] for line in RECIPE.splitlines() if line.startswith("COPY ") and "--from" not in line)
    return {source: target if target != "./" else source for source, target in copies}


def pins(lock: Path) -> set[tuple[str, str]]:
    """Names and versions; of one that depends on the Python both."""
    return set(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def needed_by(distribution: str, seen: set[str]) -> set[str]:
    """All that it needs here, and what that needs."""
    for text in importlib.metadata.requires(distribution) or ():
        requirement = Requirement(text)
        name = requirement.name.lower().replace("_", "-")
        if name not in seen and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            seen.add(name)
            needed_by(name, seen)
    return seen


def test_our_packages_build_from_what_the_image_is_given(tmp_path: Path):
    given = tmp_path / "src"
    for source, target in copied().items():
        assert f"!{source}" in {*(ROOT / ".dockerignore").read_text().splitlines()}, "or it is not sent to Docker"
        what = ROOT / source
        (given / target).parent.mkdir(parents=True, exist_ok=True)
        if what.is_dir():
            shutil.copytree(what, given / target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(what, given / target)
    words = step(MAKES_OURS)
    words[words.index("--python") + 1] = sys.executable
    words.remove("--no-cache")
    packages = [path for word in words if word.startswith("./") for path in sorted(given.glob(word))]
    assert {path.relative_to(given).as_posix() for path in packages} >= {
        path.parent.relative_to(given).as_posix() for path in given.rglob("pyproject.toml")
    }
    command = [word for word in words if not word.startswith("./")]
    # The builder is the suite's, and so are the places; all else is the image's.
    command += ["--no-build-isolation", "--target", str(tmp_path / "site"), *map(str, packages)]
    built = subprocess.run(
        [str(Path(sys.executable).with_name("uv")), *command[1:]],
        cwd=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert built.returncode == 0, built.stderr
    site = tmp_path / "site" / "converter"
    for service in SERVICES:
        assert (site / service.module.removeprefix("converter.") / "__main__.py").is_file()
    assert (site / "gateway" / "web" / "index.html").is_file()


def test_others_packages_are_pinned_to_what_the_suite_runs_with():
    words = step(MAKES_OTHERS)
    assert copied()["deploy/requirements.lock"] == words[words.index("-r") + 1]
    image = pins(ROOT / "deploy" / "requirements.lock")
    assert image <= pins(ROOT / "requirements.lock"), "run `make lock`"
    ours = [name for name in step(MAKES_OURS) if name.startswith("./")]
    distributions = [
        OURS + path.name for name in ours for path in ROOT.glob(name) if (path / "pyproject.toml").is_file()
    ]
    needed = {name for each in distributions for name in needed_by(each, set()) if not name.startswith(OURS)}
    assert needed <= {name for name, _ in image}, "run `make lock`"
