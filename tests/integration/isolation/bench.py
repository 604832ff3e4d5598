"""A bench on which a converter of `trial_converters` runs for real."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from converter.common.conversion import ConversionTask
from converter.common.isolation import Confinement, Isolation, Limits, Outcome
from converter.contracts.job import Options

MODULE = "trial_converters"
SOURCES = Path(__file__).parent
LIMITS = Limits(timeout_s=20, memory_mb=200, file_size_bytes=1 << 20)


@dataclass
class Bench:
    """Runs one converter after another, each in a work directory of its own."""

    isolation: Isolation
    root: Path
    cancel: asyncio.Event = field(default_factory=asyncio.Event)
    progress: list[tuple[float, str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    workdir: Path = Path()
    runs: int = 0

    async def run(self, converter: str, *, model: str = "a model", **limits: float) -> Outcome:
        self.runs += 1
        self.workdir = self.root / f"attempt-{self.runs}"
        self.workdir.mkdir()
        (self.workdir / "model.onnx").write_text(model)
        task = ConversionTask(
            workdir=self.workdir,
            inputs={"model": self.workdir / "model.onnx"},
            filename="model.onnx",
            platform="720",
            model_id=1,
            version="0001",
            options=Options(),
        )
        return await self.isolation.run(
            f"{MODULE}:{converter}",
            task,
            msgspec.structs.replace(LIMITS, **limits),
            on_progress=lambda fraction, activity: self.progress.append((fraction, activity)),
            on_log_line=self.lines.append,
            cancel=self.cancel,
        )

    @property
    def log(self) -> str:
        return (self.workdir / "stage.log").read_text()

    def pids(self) -> list[int]:
        """Those that the converter named in its progress."""
        return [int(activity.removeprefix("pid ")) for _, activity in self.progress if activity.startswith("pid ")]


@contextlib.asynccontextmanager
async def open_bench(root: Path, confinement: Confinement | None = None) -> AsyncIterator[Bench]:
    confinement = msgspec.structs.replace(confinement or Confinement(), sources=(SOURCES,))
    async with Isolation(preload=[MODULE], confinement=confinement) as isolation:
        yield Bench(isolation, root)
