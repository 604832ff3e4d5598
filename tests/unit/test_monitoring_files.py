"""Alerts, dashboard and runbooks speak of metrics and sections that there are."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import grafana_dashboard
import pytest
import yaml
from prometheus_client import REGISTRY

import converter.gateway.internal.metrics
import converter.gateway.metrics  # noqa: F401 - these two make the gateway's metrics

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
QUERIES = [alert["expr"] for alert in ALERTS] + [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())
]


def known() -> set[str]:
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
    return {
        family.name + suffix
        for family in REGISTRY.collect()
        for suffix in suffixes.get(family.type, ())
        if family.name.startswith(("converter_", "process_"))
    }


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_asks_for_a_metric_that_a_service_has(query: str):
    asked = set(re.findall(r"\b(?:converter|process)_[a-z_]+\b(?=[\[{()\s]|$)", query))
    assert asked
    assert asked <= known()


def test_every_metric_of_ours_is_shown_or_alerted_on():
    shown = {name for query in QUERIES for name in re.findall(r"\bconverter_[a-z_]+", query)}
    ours = {family.name for family in REGISTRY.collect() if family.name.startswith("converter_")}
    unseen = {name for name in ours if not any(each.startswith(name) for each in shown)}
    assert unseen == {"converter_stage_attempts_running", "converter_queue_redelivered"}  # of use beside others alone


def test_the_dashboard_is_what_its_generator_makes():
    assert (DEPLOY / "grafana" / "dashboard.json").read_text() == grafana_dashboard.dashboard()


def test_every_alert_has_a_section_in_the_runbooks():
    titles = re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbooks.md").read_text(), re.MULTILINE)
    assert sorted(titles) == sorted(alert["alert"] for alert in ALERTS)
    for alert in ALERTS:
        assert alert["annotations"]["runbook"] == f"docs/runbooks.md#{alert['alert'].lower()}"


@pytest.mark.parametrize("command", [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")])
def test_prometheus_accepts_the_alerts_and_fires_them_when_it_should(command: tuple[str, ...]):
    checked = subprocess.run(
        ["promtool", *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_is_seen_to_fire():
    tests = yaml.safe_load((DEPLOY / "prometheus" / "alerts_test.yaml").read_text())["tests"]
    fired = {check["alertname"] for test in tests for check in test["alert_rule_test"] if check["exp_alerts"]}
    assert fired == {alert["alert"] for alert in ALERTS}


def test_every_metric_is_explained():
    page = (ROOT / "docs" / "operating.md").read_text()
    explained = {name.removesuffix("_total") for name in re.findall(r"^\| `(\w+)`", page, re.MULTILINE)}
    assert explained == {family.name for family in REGISTRY.collect() if family.name.startswith("converter_")}
