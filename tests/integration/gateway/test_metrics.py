"""What the gateway tells its monitoring system."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from converter.devstack.nats_server import NatsServer

from .conftest import Form, GatewayProcess, StartGateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scraped(gateway: GatewayProcess) -> Samples:
    async with httpx.AsyncClient(base_url=gateway.internal_url, trust_env=False) as monitoring:
        answer = await monitoring.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=1.0.0; charset=utf-8"
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0)


async def test_queues_tokens_and_uploads_are_counted(gateway: GatewayProcess, form: Form, model: bytes):
    before = await scraped(gateway)
    async with gateway.client() as client:
        assert (await form.post(client, model)).status_code == 201
        assert (await client.get("/api/v1/jobs", params={"user_id": form.user_id})).status_code == 200
    after = await scraped(gateway)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert grown("converter_queue_pending", queue="onnx") == 1
    assert value(after, "converter_queue_oldest_age_seconds", queue="onnx") > 0
    assert value(after, "converter_workers", queue="onnx") == 0
    assert grown("converter_upload_bytes_total") > len(model)
    assert grown("converter_token_verifications_total", source="signature") == 1
    assert grown("converter_token_verifications_total", source="cache") == 1


async def test_requests_are_counted_by_the_template_of_their_path(gateway: GatewayProcess, form: Form, model: bytes):
    before = await scraped(gateway)
    async with gateway.client() as client:
        job_id = (await form.post(client, model)).json()["job_id"]
        assert (await form.post(client, model)).status_code == 409
        for _ in range(2):
            assert (await client.get(f"/api/v1/jobs/{job_id}")).status_code == 200
        assert (await client.head(f"/api/v1/jobs/{job_id}")).status_code == 200
        assert (await client.get("/nowhere")).status_code == 404
    after = await scraped(gateway)

    def grown(method: str, route: str, status: str) -> float:
        labels = {"method": method, "route": route, "status": status}
        name = "converter_http_request_seconds_count"
        return value(after, name, **labels) - value(before, name, **labels)

    assert grown("POST", "/api/v1/jobs", "201") == 1
    assert grown("GET", "/api/v1/jobs/{job_id}", "200") == 2
    assert grown("HEAD", "/api/v1/jobs/{job_id}", "200") == 1
    assert grown("GET", "", "404") == 1
    assert value(after, "converter_refusals_total", code="user_has_active_job") == 1
    assert not [labels for name, labels in after if job_id in str(labels)]


async def test_without_the_event_bus_no_old_figure_is_shown(start_gateway: StartGateway, nats: NatsServer):
    gateway = await start_gateway()
    assert ("converter_queue_pending", frozenset({("queue", "bie")})) in await scraped(gateway)
    await nats.kill()
    try:
        assert not [name for name, _ in await scraped(gateway) if name.startswith("converter_queue")]
    finally:
        await nats.start()


async def test_the_public_listener_has_no_metrics(gateway: GatewayProcess):
    async with gateway.client() as client:
        assert (await client.get("/metrics")).status_code == 404
