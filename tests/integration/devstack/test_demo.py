from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from waiting import eventually

from converter.devstack.demo import FieldWrong, wanted

from .leftovers import family, left_of, still_running

START_S = 60


@contextlib.asynccontextmanager
async def running_demo(directory: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`make demo`, writing into a pipe."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "converter.devstack", "--directory", str(directory), "demo", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def shown_by(process: asyncio.subprocess.Process) -> str:
    output, _ = await process.communicate()
    return output.decode()


async def test_the_demo_converts_promotes_verifies_and_leaves_no_process(tmp_path: Path):
    async with running_demo(tmp_path) as process:
        shown = await shown_by(process)

    assert process.returncode == 0, shown
    for stage in ("onnx", "bie", "nef"):
        assert re.search(rf"^  {stage} +100%  made digits_cnn", shown, re.MULTILINE)
        assert re.search(rf"^  sha256 {stage} +[0-9a-f]{{64}}$", shown, re.MULTILINE)
    for figure in (r"nodes +\d+ before, \d+ after", r"accuracy +[\d.]+ dB SNR, good", r"top-1 agreement +[\d.]+%"):
        assert re.search(figure, shown)
    promised = re.search(r"digest, sha256 ([0-9a-f]{64})\n.*they lie in (.+)\n", shown)
    assert promised
    signed = re.search(r"signed by the key [0-9a-f]{16}…: (.+)\n", shown)
    assert signed
    assert await (await asyncio.create_subprocess_shell(signed[1])).wait() == 0
    digest, file = promised.groups()
    assert hashlib.sha256(Path(file).read_bytes()).hexdigest() == digest
    assert left_of(tmp_path) == []


async def test_a_conversion_that_fails_names_the_stage_and_shows_its_log(tmp_path: Path):
    async with running_demo(tmp_path, "--field", 'quantization={"min_snr_db": 90}') as process:
        shown = await shown_by(process)

    assert process.returncode == 1, shown
    assert "stage-bie failed the job with accuracy_below_minimum" in shown
    assert "hint: " in shown
    assert "the end of its log:" in shown
    assert left_of(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_demo_leaves_no_process(tmp_path: Path, number: signal.Signals):
    async with running_demo(tmp_path) as process:

        async def serving() -> bool:
            return any(tmp_path.glob("demo/*/stack.env"))

        await eventually(serving, within_s=START_S)
        relatives = family(process.pid)
        process.send_signal(number)
        assert await process.wait() == 128 + number

    assert left_of(tmp_path) + still_running(relatives) == []


@pytest.mark.parametrize(
    ("name", "text"), [("model_id", "many"), ("quantization", "{min_snr_db: 90}"), ("input_shape", "wide")]
)
def test_a_field_that_is_not_written_as_it_should_be_is_named_with_what_was_given(name: str, text: str):
    with pytest.raises(FieldWrong, match=re.escape(f"the field {name} is not written so, {text!r}: ")):
        wanted(None, None, {name: text})


async def test_a_model_that_is_not_there_is_said_before_anything_starts(tmp_path: Path):
    async with running_demo(tmp_path, "--model", str(tmp_path / "none.onnx")) as process:
        shown = await shown_by(process)

    assert (process.returncode, shown) == (1, f"✗ no model {tmp_path / 'none.onnx'}\n")
