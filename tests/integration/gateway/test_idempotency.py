from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from waiting import eventually

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.idempotency import Fingerprint, IdempotencyKeys
from converter.common.identifiers import uuid7
from converter.common.topology import IDEMPOTENCY, bucket_key, bucket_stream
from converter.common.users import UserJobs
from converter.contracts.facts import JobCancelled
from converter.contracts.job import timestamp

from .conftest import Form, GatewayProcess, StartGateway, becomes

pytestmark = pytest.mark.asyncio(loop_scope="module")

Stored = Callable[[], list[str]]


async def post(client: httpx.AsyncClient, form: Form, model: bytes, key: str, **more: object) -> httpx.Response:
    files = more.pop("files", [("model", ("m.onnx", model))])
    return await client.post("/api/v1/jobs", data=form.fields(**more), files=files, headers={"Idempotency-Key": key})


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text


async def test_a_repeat_answers_the_job_as_it_was_created(
    gateway: GatewayProcess, shared_bus: Bus, form: Form, model: bytes, image: bytes, stored: Stored
):
    key, files = uuid7(), [("model", ("m.onnx", model)), ("ref_images", ("1.png", image))]
    async with gateway.client() as client:
        first = await post(client, form, model, key, files=files)
        assert first.status_code == 201
        assert "idempotency-replayed" not in first.headers
        before = stored()
        as_created = first.json() | {"queue_position": None, "estimated_wait_s": None, "warnings": []}
        again = await post(client, form, model, key, files=files)
        assert (again.status_code, again.json()) == (201, as_created)
        assert again.headers["idempotency-replayed"] == "true"
        assert again.headers["location"] == first.headers["location"]
        await JobLog(shared_bus, "test").append(first.json()["job_id"], lambda _: JobCancelled(at=timestamp()))
        again = await post(client, form, model, key, files=files[::-1])
        assert (again.status_code, again.json()) == (201, as_created)
    assert stored() == before
    assert await UserJobs(shared_bus).newest_first("visiona", form.user_id) == [first.json()["job_id"]]


async def test_another_request_under_the_same_key_is_refused(
    gateway: GatewayProcess, form: Form, model: bytes, image: bytes, stored: Stored
):
    key = uuid7()
    async with gateway.client() as client:
        assert (await post(client, form, model, key)).status_code == 201
        before = stored()
        different: list[dict[str, Any]] = [
            {"version": "0002"},
            {"preprocess": "yolo"},
            {"files": [("model", ("m.onnx", model + b"\x72\x00"))]},
            {"files": [("model", ("other.onnx", model))]},
            {"files": [("model", ("m.onnx", model)), ("ref_images", ("1.png", image))]},
        ]
        for more in different:
            refused(await post(client, form, model, key, **more), 422, "idempotency_mismatch")
    assert stored() == before


@pytest.mark.parametrize(
    ("earlier", "again", "same"),
    [
        (Fingerprint("with U1"), Fingerprint("with U1", "model"), True),  # of a release before this one
        (Fingerprint("with U1", "model"), Fingerprint("with U2", "model"), True),
        (Fingerprint("with U1"), Fingerprint("with U2"), False),
        (Fingerprint("with U1", "model"), Fingerprint("with U1 or not", "another"), False),
    ],
)
async def test_what_is_the_same_request(earlier: Fingerprint, again: Fingerprint, *, same: bool):
    assert earlier.matches(again) is again.matches(earlier) is same


async def test_a_key_is_the_clients_own(gateway: GatewayProcess, new_form: Callable[[], Form], model: bytes):
    key = uuid7()
    async with gateway.client() as client, gateway.client(client_id="other") as other:
        first = await post(client, new_form(), model, key)
        second = await post(other, new_form(), model, key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["job_id"] != second.json()["job_id"]


async def test_a_key_is_held_while_its_request_arrives_and_free_when_it_vanishes(
    gateway: GatewayProcess, form: Form, model: bytes, stored: Stored
):
    key, before = uuid7(), stored()
    head = b"".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in form.fields().items()
    )
    head += b'--b\r\nContent-Disposition: form-data; name="model"; filename="m.onnx"\r\n\r\n' + model[:50_000]
    async with gateway.client() as client:

        async def stalled() -> Any:  # noqa: ANN401 - an asynchronous generator
            yield head
            await asyncio.Event().wait()

        headers = {"Content-Type": "multipart/form-data; boundary=b", "Idempotency-Key": key}
        unfinished = asyncio.create_task(client.post("/api/v1/jobs", content=stalled(), headers=headers))
        await becomes(lambda: stored() != before)
        refused(await post(client, form, model, key), 409, "idempotency_in_progress")
        unfinished.cancel()
        await asyncio.wait({unfinished})
        await becomes(lambda: stored() == before)
        assert (await post(client, form, model, key)).status_code == 201


async def test_many_at_once_make_one_job(gateway: GatewayProcess, shared_bus: Bus, form: Form, model: bytes):
    key = uuid7()
    async with gateway.client() as client:
        answers = await asyncio.gather(*(post(client, form, model, key) for _ in range(4)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    made = {answer.json()["job_id"] for answer in answers if answer.status_code == 201}
    assert len(made) == 1
    assert set(await UserJobs(shared_bus).newest_first("visiona", form.user_id)) >= made


async def test_a_refused_request_frees_its_key(gateway: GatewayProcess, form: Form, model: bytes):
    key = uuid7()
    async with gateway.client() as client:
        refused(await post(client, form, model, key, platform="1"), 400, "validation_error")
        first = await post(client, form, model, uuid7())
        refused(await post(client, form, model, key), 409, "user_has_active_job")
        assert first.status_code == 201
        assert (await post(client, Form(), model, key)).status_code == 201


async def test_a_first_try_that_died_heals(start_gateway: StartGateway, form: Form, model: bytes, shared_bus: Bus):
    key = uuid7()
    dying = await start_gateway(FAILPOINT="before:create", CLAIM_GRACE_S="1")
    healthy = await start_gateway(CLAIM_GRACE_S="1")
    async with dying.client() as client:
        with pytest.raises(httpx.TransportError):
            await post(client, form, model, key)
    async with healthy.client() as client:
        refused(await post(client, form, model, key), 409, "idempotency_in_progress")

        async def is_taken() -> bool:
            return (await post(client, form, model, key)).status_code == 201

        await eventually(is_taken)


async def test_a_body_that_nobody_renews_is_taken_over(shared_bus: Bus):
    log = JobLog(shared_bus, "test")
    client_id, key = uuid7(), "key"
    stale, patient = (IdempotencyKeys(shared_bus, log, grace=timedelta(seconds=s)) for s in (0, 60))
    async with patient.held(client_id, key, uuid7()), stale.held(client_id, key, uuid7()) as hold:
        await hold.bind(Fingerprint("fingerprint"))
    found = await shared_bus.last(bucket_stream(IDEMPOTENCY), bucket_key(IDEMPOTENCY, f"{client_id}.*"))
    assert found is not None
    assert b"fingerprint" in found.data


@pytest.mark.parametrize("key", ["", "a b", "ü", "x" * 256])
async def test_a_malformed_key_is_refused(gateway: GatewayProcess, form: Form, model: bytes, key: str):
    async with gateway.client() as client:
        files = {"model": ("m.onnx", model)}
        headers = [("Idempotency-Key", key.encode())]
        answer = await client.post("/api/v1/jobs", data=form.fields(), files=files, headers=headers)
    refused(answer, 400, "validation_error")
