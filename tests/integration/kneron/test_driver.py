"""The driver as a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import onnx
from standins.vendor_python import STANDINS, an_interpreter

from converter.kneron import driver

from .conftest import a_classifier


def started(directory: Path, failure: str = "") -> subprocess.Popen[bytes]:
    job = directory / "job"
    job.mkdir()
    shutil.copyfile(driver.__file__, job / "driver.py")
    onnx.save(a_classifier(1), job / "model.onnx")
    command = [an_interpreter(directory, failure), "driver.py"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=job, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
    request = {"step": "optimise", "home": str(STANDINS), "model": "model.onnx", "optimised": "optimised.onnx"}
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.flush()
    return process


def test_the_answer_is_all_that_it_says_on_standard_output(tmp_path: Path):
    with started(tmp_path) as process:
        words = [json.loads(line) for line in process.stdout]
    assert words == [{"progress": [0.1, "optimising"]}, {"result": {"version": "0.25.0"}}]
    assert process.returncode == 0
    assert (tmp_path / "job" / "optimised.onnx").stat().st_size > 0


def test_it_leaves_with_its_client_in_the_middle_of_a_call(tmp_path: Path):
    with started(tmp_path, "hang") as process:
        assert b"optimising" in process.stdout.readline()
        process.stdin.close()
        assert process.wait(20) == 1
