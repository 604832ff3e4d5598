"""The figures of a conversion's reports, as lines."""

from __future__ import annotations

from typing import Any

from converter.command.stages import STAGES

Reports = dict[str, dict[str, Any]]
"""By stage, its conversion report."""


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
