"""What the demo prints at the end: how each stage went, and what is where."""

from __future__ import annotations

from datetime import datetime

from rich.console import Console
from rich.table import Table

from converter.client.resources import Job, Timing
from converter.command.findings import Reports, findings
from converter.command.stages import STAGES, size

_FIGURES = {"waited", "ran", "size"}


def print_summary(console: Console, job: Job, reports: Reports) -> None:
    """A table of the stages, the findings of their reports, and the warnings."""
    table = Table(title=f"job {job.job_id}: {job.status}", title_justify="left", title_style="bold")
    for heading in ("stage", "waited", "ran", "size", "artifact"):
        table.add_column(heading, justify="right" if heading in _FIGURES else "left")
    for stage in STAGES:
        timing, made = job.stage_timings.get(stage, Timing()), job.artifacts.get(stage)
        table.add_row(
            stage,
            _seconds(timing.queued_at, timing.started_at),
            "cached" if timing.cached else _seconds(timing.started_at, timing.completed_at),
            size(made.size_bytes) if made else "",
            made.filename if made else "",
        )
    console.print(table)
    for name, made in job.artifacts.items():
        console.print(f"  sha256 {name:5}{made.sha256}", markup=False, soft_wrap=True)
    for line in findings(reports):
        console.print(f"  {line}", markup=False, soft_wrap=True)
    if job.toolchain:
        console.print(
            f"  converted by the toolchain {job.toolchain.name} {job.toolchain.version}", markup=False, soft_wrap=True
        )
    for warning in job.warnings:
        console.print(f"  warning: {warning}", style="yellow", markup=False, soft_wrap=True)


def _seconds(began: datetime | None, ended: datetime | None) -> str:
    if not began or not ended:
        return ""
    return f"{(ended - began).total_seconds():.2f} s"
