"""What a job leaves in the monitoring systems: one trace, and figures at every service."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from functools import partial

import httpx
import pytest
import pytest_asyncio
from collector import Collector, Spanned
from digits import Digits
from prometheus_client.parser import text_string_to_metric_families
from upstream import Upstream
from waiting import eventually

from converter.devstack.stack import Stack

from .conftest import SETTINGS

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"
STAGES = ("stage-onnx", "stage-bie", "stage-nef")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def collector() -> AsyncIterator[Collector]:
    made = Collector()
    async with made.receiving():
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> AsyncIterator[Stack]:
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    async with Stack(tmp_path_factory.mktemp("stack"), settings=SETTINGS | traced) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def promoted(stack: Stack, token: str) -> str:
    """A job that was converted and promoted for a caller who traces."""
    headers = {"traceparent": f"00-{CALLER}-00f067aa0ba902b7-01"}
    async with httpx.AsyncClient(trust_env=False, timeout=60, headers=headers) as http:
        upstream = Upstream(http, stack.env["GATEWAY_URL"], token)
        job = await Digits(upstream).post("alice")
        await eventually(partial(over, upstream, job.job_id), within_s=60)
        await upstream.promote(job.job_id, source="nef", key="traced.nef")
    return job.job_id


async def over(upstream: Upstream, job_id: str) -> bool:
    return (await upstream.job(job_id)).over


async def test_one_trace_follows_a_job_from_the_request_to_the_file_store(collector: Collector, promoted: str):
    async def all_spans() -> dict[str, Spanned] | None:
        spans = {f"{span.service}: {span.name}": span for span in collector.spans if span.trace == CALLER}
        return spans if expected <= spans.keys() else None

    post, promote = "api-gateway: POST /api/v1/jobs", "api-gateway: POST /api/v1/jobs/{job_id}/promote"
    expected = {post, promote, "promoter: promoter process"}
    expected |= {f"{stage}: {stage} process" for stage in STAGES}
    spans = await eventually(all_spans, within_s=20)
    causes = [post, *(f"{stage}: {stage} process" for stage in STAGES)]
    for cause, effect in itertools.pairwise(causes):
        assert spans[effect].parent == spans[cause].id
    assert spans["stage-bie: bie attempt"].parent == spans["stage-bie: stage-bie process"].id
    assert spans["promoter: promoter process"].parent == spans[promote].id
    assert spans[post].parent == "00f067aa0ba902b7"


async def test_log_lines_name_the_trace(stack: Stack, promoted: str):
    for stage in STAGES:
        lines = [json.loads(line) for line in (stack.directory / "logs" / f"{stage}.log").read_text().splitlines()]
        [completed] = [line for line in lines if line["action"] == "stage.completed"]
        assert (completed["trace_id"], completed["job_id"]) == (CALLER, promoted)


async def test_every_worker_counts_what_it_did(stack: Stack, promoted: str, http: httpx.AsyncClient):
    for name in (*STAGES, "promoter"):
        lines = [json.loads(line) for line in (stack.directory / "logs" / f"{name}.log").read_text().splitlines()]
        [port] = [line["port"] for line in lines if line.get("face") == "metrics"]
        page = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
        families = {family.name: family for family in text_string_to_metric_families(page)}
        acknowledged = [
            sample.value
            for sample in families["converter_messages"].samples
            if sample.name.endswith("_total") and sample.labels == {"consumer": name, "outcome": "acknowledged"}
        ]
        assert acknowledged == [1]
