"""The client's distribution without the converter's others, as `pip install converter-client` leaves it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

_SOURCES = Path(__file__).parents[3] / "libs" / "client" / "src"
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
    ("arguments", "extra"),
    [
        (("inspect", "model.onnx"), "toolchain"),
        (("run",), "toolchain"),
        (("verify", "x", "--key", "y"), "doctor"),
        (("doctor",), "doctor"),
    ],
)
def test_a_command_that_needs_more_names_the_extra_that_brings_it(arguments: tuple[str, ...], extra: str):
    said = alone(*arguments)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.endswith(f"pip install 'converter-client[{extra}]'\n")


def test_the_others_work():
    assert "doctor" in alone("--help").stdout
    said = alone("show", "x", "--env-file", "/absent")
    assert (said.returncode, said.stderr) == (2, "converter: /absent: No such file or directory\n")
