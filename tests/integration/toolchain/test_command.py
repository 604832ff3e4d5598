"""The command line, in its own process and in this one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from converter.devstack.demo import DATA
from converter.toolchain.command import main

from .conftest import Digits

PICTURE = min((DATA / "digits_calibration").glob("*.png"))


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def test_a_model_is_inspected_by_its_bytes(capsys: pytest.CaptureFixture[str]):
    text = said(capsys, "inspect", DATA / "digits_cnn.onnx", "--platform", "520")
    assert "Conv" in text
    assert "npu-conditional" in text
    found = json.loads(said(capsys, "inspect", DATA / "digits_cnn.onnx", "--json"))
    assert {row["op"]: row["count"] for row in found["operators"]}["Conv"] == 3


@pytest.mark.parametrize("stage", ["bie", "nef"])
def test_an_artifact_is_inspected_and_tested(capsys: pytest.CaptureFixture[str], digits: Digits, stage: str):
    artifact = getattr(digits, stage).artifact
    capsys.readouterr()
    found = json.loads(said(capsys, "inspect", artifact, "--json"))
    assert (found["self_test"], found["verdict"], found["step"]) == ("passed", "good", "int8")
    assert "does not run on Kneron hardware" in said(capsys, "inspect", artifact)


def test_an_artifact_runs_on_an_image(capsys: pytest.CaptureFixture[str], digits: Digits):
    capsys.readouterr()
    (answer,) = json.loads(said(capsys, "run", digits.nef.artifact, PICTURE, "--json"))["outputs"]
    assert answer["shape"] == [1, 10]
    assert len(answer["best"]) == 5
    assert answer["best"][0]["value"] == answer["max"]
    assert f"{answer['best'][0]['index']:>6}  " in said(capsys, "run", digits.nef.artifact, PICTURE)


@pytest.mark.parametrize("command", [("inspect", PICTURE), ("run", PICTURE, PICTURE), ("inspect", "/nowhere")])
def test_a_wrong_file_is_told_in_a_line(capsys: pytest.CaptureFixture[str], command: tuple[object, ...]):
    assert main([str(argument) for argument in command]) == 1
    assert capsys.readouterr().err.startswith("converter: ")


def test_it_runs_as_a_program(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "converter.toolchain.command", "inspect", str(DATA / "digits_cnn.onnx")],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.startswith("kind")
    assert done.stderr == ""
