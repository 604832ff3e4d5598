"""How a job's stages are shown while it runs: bars on a terminal, lines in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

from msgspec import structs
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from converter.client import resources
from converter.client.resources import Job, JobEvent

Stage = Literal["onnx", "bie", "nef"]
STAGES: tuple[Stage, ...] = get_args(Stage)
_LINE_EVERY = 0.25
_KILOBYTE, _MEGABYTE = 1000, 1_000_000


class StageView:
    """How far each stage of a job is, and what it is doing."""

    def __init__(self, draw: Callable[[StageView], None]) -> None:
        self._draw = draw
        self._job: Job | None = None

    def seen(self, event: JobEvent | resources.Progress) -> None:
        """Something has happened to the job."""
        if isinstance(event, JobEvent):
            self._job = event.job or self._job
        elif self._job is not None:
            self._job = structs.replace(self._job, progress=event.progress, activity=event.activity)
        self._draw(self)

    @property
    def stages(self) -> tuple[str, ...]:
        """Those that the job runs."""
        return STAGES[: STAGES.index(self._job.options.targets) + 1] if self._job else STAGES

    def started(self, stage: str) -> bool:
        """Whether a worker took the stage."""
        timing = self._job.stage_timings.get(stage) if self._job else None
        return timing is not None and timing.started_at is not None

    def fraction(self, stage: str) -> float:
        """How much of the stage is done, in 0..1."""
        job = self._job
        if job and stage in job.artifacts:
            return 1.0
        if job is None or job.stage != stage:
            return 0.0
        # The job tells its progress as a whole, of which every stage is an equal part.
        return max(job.progress * len(self.stages) - len(job.artifacts), 0.0)

    def doing(self, stage: str) -> str:
        """What the stage does, in a few words."""
        job = self._job
        if job and (made := job.artifacts.get(stage)):
            return f"made {made.filename}, {size(made.size_bytes)}"
        if job and job.over and job.stage == stage:
            return job.error.code if job.error else job.status
        return (job.activity or "") if job and job.stage == stage else ""


@contextmanager
def stage_view(console: Console) -> Iterator[StageView]:
    """The stages of a job that is under way."""
    if not console.is_terminal:
        yield StageView(_Lines(console).draw)
        return
    columns = (
        TextColumn("  {task.description:5}"),
        BarColumn(bar_width=32),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[doing]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        yield StageView(_Bars(progress).draw)


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks = {stage: progress.add_task(stage, total=1.0, start=False, doing="") for stage in STAGES}

    def draw(self, view: StageView) -> None:
        for stage, task in self._tasks.items():
            if view.started(stage):
                self._progress.start_task(task)
            shown = stage in view.stages
            self._progress.update(task, completed=view.fraction(stage), doing=view.doing(stage), visible=shown)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = dict.fromkeys(STAGES, ("", 0.0))

    def draw(self, view: StageView) -> None:
        for stage, (kind, fraction) in self._shown.items():
            doing, now = view.doing(stage), view.fraction(stage)
            # What follows the comma counts up ("calibrating, sample 12 of 100") and is worth a line now and then.
            kind_now = doing.partition(",")[0]
            if doing and (kind_now != kind or now - fraction >= _LINE_EVERY):
                self._console.print(f"  {stage:5} {now:4.0%}  {doing}", markup=False, soft_wrap=True)
                self._shown[stage] = (kind_now, now)


def size(size_bytes: int) -> str:
    """A number of bytes for people."""
    return f"{size_bytes / _MEGABYTE:.1f} MB" if size_bytes >= _MEGABYTE else f"{size_bytes / _KILOBYTE:.1f} kB"
