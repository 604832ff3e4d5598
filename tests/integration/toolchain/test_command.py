"""The command line, in its own process and in this one."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from jobs import AT, completed, request
from keys import key_pair
from msgspec.structs import replace
from standins.nef_writer import nef

from converter.command import main
from converter.common.provenance import SigningKey
from converter.common.provenance.statement import bundle, statement
from converter.contracts.job import Stage
from converter.devstack.demo import DATA

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


@pytest.mark.parametrize("name", ["models_720.nef", "renamed.bin"])
def test_a_compiled_file_is_inspected_whatever_its_name(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(nef())
    found = json.loads(said(capsys, "inspect", path, "--json"))
    assert (found["kind"], found["chips"], found["toolchain_version"]) == ("NEF", ["720"], "0.25.0")
    assert found["firmware_table"] == [{"id": 32768, "version": "00a1"}]
    assert "both as they should be" in said(capsys, "inspect", path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("models_720.nef", nef()[:-9], "CRC-32"),
        ("input.kdp720.scaled.bie", b"\x12\x99" * 500, "is encrypted"),
        ("page.onnx", b"<!doctype html><html></html>", "looks like an HTML page"),
        ("empty.onnx", b"", "is empty"),
    ],
)
def test_what_cannot_be_inspected_says_why(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, content: bytes, words: str
):
    (tmp_path / name).write_bytes(content)
    assert main(["inspect", str(tmp_path / name)]) == 1
    assert words in capsys.readouterr().err


def test_a_renamed_artifact_is_told_by_its_content(capsys: pytest.CaptureFixture[str], digits: Digits, tmp_path: Path):
    (tmp_path / "digits.nef").write_bytes(digits.nef.artifact.read_bytes())
    capsys.readouterr()
    assert json.loads(said(capsys, "inspect", tmp_path / "digits.nef", "--json"))["self_test"] == "passed"


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


def test_a_file_is_verified_against_the_statement_beside_it(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    keys, file = key_pair(tmp_path), tmp_path / "digits.onnx"
    file.write_bytes((DATA / "digits_cnn.onnx").read_bytes())
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    fact = completed(Stage.ONNX)
    fact = replace(fact, artifact=replace(fact.artifact, filename="digits\x1b.onnx", sha256=sha256))
    stated = statement("job", request(), fact, parameters={}, inputs={}, started_at=AT)
    Path(f"{file}.intoto.jsonl").write_bytes(bundle(stated, SigningKey.read(keys.private)))

    text = said(capsys, "verify", file, "--key", keys.public)
    assert sha256 in text
    assert "\x1b" not in text
    assert json.loads(said(capsys, "verify", file, "--key", keys.public, "--json"))["invocation_id"] == "job/onnx/1"
    elsewhere = Path(f"{file}.intoto.jsonl").rename(tmp_path / "elsewhere")
    assert sha256 in said(capsys, "verify", file, "--key", keys.public, "--statement", elsewhere)

    for wrong in (
        ("verify", file, "--key", keys.public),
        ("verify", PICTURE, "--key", keys.public, "--statement", elsewhere),
    ):
        assert main([str(argument) for argument in wrong]) == 1
        assert capsys.readouterr().err.startswith("converter: ")


def test_it_runs_as_a_program(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "converter.command", "inspect", str(DATA / "digits_cnn.onnx")],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.startswith("kind")
    assert done.stderr == ""
