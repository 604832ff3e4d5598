"""What the demo prints at the end: how each stage went, and what is where."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from converter.contracts.job import STAGES, moment
from converter.devstack.screen import kilobytes
from converter.devstack.upstream import Job, Reports, Timing


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
            kilobytes(made.size_bytes) if made else "",
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


_FIGURES = {"waited", "ran", "size"}


def findings(reports: Reports) -> list[str]:
    """The figures that people ask for first; what a report does not tell is left out."""
    onnx, bie, nef = (reports.get(stage, {}) for stage in STAGES)
    before, after, parity = onnx.get("source", {}), onnx.get("result", {}), onnx.get("parity", {})
    accuracy, used = bie.get("accuracy", {}), bie.get("calibration", {})
    agreement = accuracy.get("top1_agreement") or {}
    latency = nef.get("timings", {}).get("latency_ms", {})
    told = {
        "nodes": _text("{} before, {} after", before.get("nodes"), after.get("nodes")),
        "parameters": _text("{:,} before, {:,} after", before.get("parameters"), after.get("parameters")),
        "multiply-accumulates": _text("{:,} a run", after.get("macs")),
        "optimised against source": _text("largest difference {}", parity.get("max_abs")),
        "calibrated with": _text("{} of {} samples", used.get("used"), used.get("count")),
        "accuracy": _text("{:.1f} dB SNR, {}", accuracy.get("snr_db"), accuracy.get("verdict")),
        "top-1 agreement": _text("{:.1%} over {} samples", agreement.get("simulated"), accuracy.get("samples_count")),
        "self-test of the package": {True: "passed", False: "failed"}.get(nef.get("self_test", {}).get("passed"), ""),
        "latency on this machine": _text("p50 {} ms, p95 {} ms", latency.get("p50"), latency.get("p95")),
    }
    return [f"{name:26}{text}" for name, text in told.items() if text]


def _text(form: str, *figures: Any) -> str:  # noqa: ANN401 - whatever a report holds
    return "" if None in figures else form.format(*figures)


def _seconds(began: str | None, ended: str | None) -> str:
    if not began or not ended:
        return ""
    return f"{(moment(ended) - moment(began)).total_seconds():.2f} s"
