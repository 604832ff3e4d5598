"""The client's distribution without the converter's others, as `pip install ./libs/client` leaves it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[3]
_SOURCES = _ROOT / "libs" / "client" / "src"
_RUN = """
import sys
sys.path[:0] = sys.argv[1:3]
import converter.client
from converter.command import main
sys.exit(main(sys.argv[3:]))
"""


def alone(*arguments: str) -> subprocess.CompletedProcess[str]:
    # -S leaves out the links to the other distributions' sources.
    paths = (str(_SOURCES), sysconfig.get_path("purelib"))
    command = (sys.executable, "-S", "-c", _RUN, *paths, *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "folders"),
    [
        (("inspect", "model.onnx"), "./contracts ./libs/common ./libs/toolchain ./libs/kneron"),
        (("run",), "./contracts ./libs/common ./libs/toolchain ./libs/kneron"),
        (("verify", "x", "--key", "y"), "./contracts ./libs/common"),
        (("doctor",), "./contracts ./libs/common"),
    ],
)
def test_a_command_that_needs_more_names_what_brings_it(arguments: tuple[str, ...], folders: str):
    said = alone(*arguments)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.endswith(f": pip install {folders}\n")
    assert all((_ROOT / folder / "pyproject.toml").is_file() for folder in folders.split())


def test_the_others_work():
    assert "doctor" in alone("--help").stdout
    said = alone("show", "x", "--env-file", "/absent")
    assert (said.returncode, said.stderr) == (2, "converter: /absent: No such file or directory\n")


def test_the_usage_of_submit_names_what_the_table_below_it_explains():
    usage = " ".join(alone("submit", "--help").stdout.partition("Have a model")[0].split())
    assert usage == "Usage: converter submit --platform CHOICE --model-id INT [OPTIONS] MODEL [IMAGES...]"
