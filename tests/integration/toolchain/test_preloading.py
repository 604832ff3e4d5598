"""What the warden imports once, no conversion imports again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
from conversions import LIMITS, task

from converter.common.isolation import Confinement, Converted, Isolation
from converter.contracts.job import STAGES

from .conftest import Digits

CONVERTERS = "importing_converters"


async def test_a_conversion_imports_nothing_anew(tmp_path: Path, digits: Digits):
    confinement = Confinement(sources=(Path(__file__).parent,))
    told: list[str] = []
    async with Isolation(preload=[CONVERTERS], confinement=confinement) as isolation:
        for stage, source in zip(STAGES, (digits.source, digits.onnx.artifact, digits.bie.artifact), strict=True):
            outcome = await isolation.run(
                f"{CONVERTERS}:{stage}_stage",
                task(stage, source, tmp_path / stage, digits.images),
                msgspec.structs.replace(LIMITS, timeout_s=60),
                on_progress=lambda _, activity: told.append(activity),
                cancel=asyncio.Event(),
            )
            assert isinstance(outcome, Converted), outcome
    assert [activity for activity in told if activity.startswith("imported")] == ["imported "] * 3
