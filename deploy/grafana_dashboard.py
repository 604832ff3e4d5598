"""Writes `deploy/grafana/dashboard.json`: one page for all services. Run by `make generate`."""

from __future__ import annotations

import json
import sys
from typing import NamedTuple

WIDTH, HEIGHT = 12, 8
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Panel(NamedTuple):
    """A plot over time: its title, its unit as Grafana names it, and its queries with their legends."""

    title: str
    unit: str
    queries: dict[str, str]


def _rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}[$__rate_interval]))"


def _quantile(quantile: float, metric: str, by: str) -> str:
    return f"histogram_quantile({quantile}, {_rate(f'{metric}_bucket', f'{by}, le')})"


ROWS: dict[str, list[Panel]] = {
    "Queues": [
        Panel("Waiting", "short", {"{{queue}}": "max by (queue) (converter_queue_pending)"}),
        Panel("Age of the oldest", "s", {"{{queue}}": "max by (queue) (converter_queue_oldest_age_seconds)"}),
        Panel("Workers", "short", {"{{queue}}": "max by (queue) (converter_workers)"}),
        Panel("In progress", "short", {"{{queue}}": "max by (queue) (converter_queue_in_progress)"}),
    ],
    "Stages": [
        Panel(
            "Attempts",
            "ops",
            {"{{stage}} {{outcome}}": _rate("converter_stage_attempt_seconds_count", "stage, outcome")},
        ),
        Panel(
            "Duration of attempts",
            "s",
            {
                "{{stage}} p50": _quantile(0.5, "converter_stage_attempt_seconds", "stage"),
                "{{stage}} p95": _quantile(0.95, "converter_stage_attempt_seconds", "stage"),
            },
        ),
        Panel("Messages", "ops", {"{{consumer}} {{outcome}}": _rate("converter_messages_total", "consumer, outcome")}),
        Panel("Redeliveries", "ops", {"{{consumer}}": _rate("converter_redeliveries_total", "consumer")}),
    ],
    "Gateway": [
        Panel("Requests", "reqps", {"{{status}}": _rate("converter_http_request_seconds_count", "status")}),
        Panel("Slowest of a hundred", "s", {"{{route}}": _quantile(0.99, "converter_http_request_seconds", "route")}),
        Panel("Refusals", "ops", {"{{code}}": _rate("converter_refusals_total", "code")}),
        Panel("Upload", "Bps", {"read": "sum(rate(converter_upload_bytes_total[$__rate_interval]))"}),
        Panel("Tokens", "ops", {"{{source}}": _rate("converter_token_verifications_total", "source")}),
        Panel("Event streams", "short", {"open": "sum(converter_event_streams_open)"}),
    ],
    "Processes": [
        Panel(
            "Event loop, slowest of a hundred",
            "s",
            {"{{instance}}": _quantile(0.99, "converter_event_loop_lag_seconds", "instance")},
        ),
        Panel(
            "Lost connections to the event bus",
            "ops",
            {"{{instance}}": _rate("converter_bus_interruptions_total", "instance")},
        ),
        Panel("Memory", "bytes", {"{{instance}}": 'process_resident_memory_bytes{job=~"converter.*"}'}),
        Panel("State conflicts", "ops", {"{{instance}}": _rate("converter_state_conflicts_total", "instance")}),
    ],
}


def dashboard() -> str:
    """The file's text."""
    panels: list[dict[str, object]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append({"type": "row", "title": title, "gridPos": {"x": 0, "y": y, "w": 2 * WIDTH, "h": 1}})
        y += 1
        for number, panel in enumerate(row):
            panels.append(_plot(panel, x=number % 2 * WIDTH, y=y + number // 2 * HEIGHT))
        y += (len(row) + 1) // 2 * HEIGHT
    page = {
        "title": "Kneron Model Converter",
        "uid": "kneron-model-converter",
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, start=1)],
    }
    return json.dumps(page, indent=2) + "\n"


def _plot(panel: Panel, *, x: int, y: int) -> dict[str, object]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": DATASOURCE, "expr": query, "legendFormat": legend}
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }


if __name__ == "__main__":
    sys.stdout.write(dashboard())
