"""How much memory a conversion takes, each stage in its jail as in production."""

from __future__ import annotations

import asyncio
from pathlib import Path

import onnx
from generated_model import convolutions

from converter.common.conversion import ConversionTask
from converter.common.isolation import Converted, Isolation, Limits
from converter.contracts.job import STAGES, Options, Stage

WEIGHTS_MB = 30
IDLE_BYTES, TIMES_THE_MODEL = 120 << 20, 8
"""docs/models.md states the bound."""
SOURCE = {Stage.ONNX: "model", Stage.BIE: "onnx", Stage.NEF: "bie"}


def watched(fraction: float, activity: str) -> None:
    assert 0 <= fraction <= 1, activity


async def test_no_stage_takes_more_than_a_few_times_the_model(tmp_path: Path):
    model = tmp_path / "model.onnx"
    onnx.save(convolutions(WEIGHTS_MB), model)
    allowed = IDLE_BYTES + TIMES_THE_MODEL * model.stat().st_size
    peaks: dict[Stage, int] = {}
    async with Isolation(preload=[f"converter.stage_{stage}.reference" for stage in STAGES]) as isolation:
        source = model
        for stage in STAGES:
            workdir = tmp_path / stage
            workdir.mkdir()
            taken = source.rename(workdir / source.name)
            outcome = await isolation.run(
                f"converter.stage_{stage}.reference:convert",
                ConversionTask(
                    workdir=workdir,
                    inputs={SOURCE[stage]: taken},
                    filename="big.onnx",
                    platform="720",
                    model_id=40000,
                    version="0001",
                    options=Options(),
                ),
                Limits(timeout_s=100, memory_mb=1000),
                on_progress=watched,
                cancel=asyncio.Event(),
            )
            assert isinstance(outcome, Converted), outcome
            source, peaks[stage] = outcome.conversion.artifact, outcome.run.peak_memory_bytes
    assert max(peaks.values()) < allowed, peaks
    assert min(peaks.values()) > WEIGHTS_MB * 1_000_000, "the warden sees what a stage takes"
