"""A promotion from the request in the log to its end in the log, and what is in the file store then."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from converter.common.bus import Bus, EventBusUnavailable
from converter.common.consumer import Transient, consume
from converter.common.eventlog import JobLog
from converter.common.identifiers import uuid7
from converter.common.lifecycle import State
from converter.common.storage import ArtifactStore
from converter.common.topology import EVENTS, PROMOTER
from converter.common.workers import Presence
from converter.contracts.facts import (
    AnyFact,
    JobCreated,
    JobDeleted,
    PromotionFailed,
    PromotionRequested,
    StageCompleted,
    StageStarted,
)
from converter.contracts.job import (
    Artifact,
    JobRecord,
    JobRequest,
    Model,
    Options,
    Promotion,
    Stage,
    Toolchain,
    timestamp,
)
from converter.devstack import process
from converter.devstack.loopback import free_ports
from converter.devstack.nats_server import NatsServer
from converter.promoter.file_store import FileStore
from converter.promoter.handler import Promotions

from .conftest import CLIENT, Company, Exchange, Made, answering, reset_mid_body

KEY = "models/alice/yolo.onnx"
PATH = f"/files/{KEY}"


class Job:
    """A completed job whose onnx stage made `made`."""

    def __init__(self, job_log: JobLog, job_id: str) -> None:
        self._job_log, self.job_id = job_log, job_id

    async def append(self, fact: AnyFact) -> State:
        return await self._job_log.append(self.job_id, lambda _: fact)

    async def request(self, *, lives_s: float = 60.0, source: Stage = Stage.ONNX, key: str = KEY) -> str:
        """Ask for a promotion; its id."""
        deadline = timestamp(datetime.now(UTC) + timedelta(seconds=lives_s))
        fact = PromotionRequested(
            at=timestamp(), promotion_id=uuid7(), source=source, target_object_key=key, deadline=deadline
        )
        await self.append(fact)
        return fact.promotion_id

    async def promotion(self, promotion_id: str) -> Promotion:
        state = await self._job_log.read(self.job_id)
        assert isinstance(state, JobRecord)
        return next(promotion for promotion in state.promotions if promotion.promotion_id == promotion_id)

    async def ended(self, promotion_id: str) -> Promotion:
        """The promotion, once it is not pending any more."""

        def has_ended(state: State) -> bool:
            return isinstance(state, JobRecord) and any(
                promotion.promotion_id == promotion_id and promotion.status != "pending"
                for promotion in state.promotions
            )

        await self._job_log.wait(self.job_id, has_ended, 20)
        return await self.promotion(promotion_id)


STATEMENT = b'{"payload": "signed"}\n'


@pytest.fixture
async def job(job_log: JobLog, made: Made) -> Job:
    return await a_job(job_log, made)


@pytest.fixture
async def signed_job(job_log: JobLog, made: Made, store: ArtifactStore) -> Job:
    """The same, with a statement beside its artifact."""
    stored = await store.put("jobs/1/onnx/1/provenance", STATEMENT)
    named = {"filename": "model.nef.intoto.jsonl", "media_type": "application/vnd.in-toto.bundle"}
    return await a_job(job_log, made, Artifact(**msgspec.structs.asdict(stored), **named, created_at=timestamp()))


async def a_job(job_log: JobLog, made: Made, provenance: Artifact | None = None) -> Job:
    job, now = Job(job_log, uuid7()), timestamp()
    model = Model(object_key="jobs/1/input/model.onnx", size_bytes=1, sha256="0" * 64, filename="yolo.onnx")
    request = JobRequest(
        client_id="visiona",
        user_id="alice",
        platform="720",
        model_id=40000,
        version="0001",
        model=model,
        options=Options(last_stage=Stage.ONNX),
    )
    await job.append(JobCreated(at=now, job_id=job.job_id, request=request, expires_at=now))
    await job.append(StageStarted(at=now, stage=Stage.ONNX, attempt=1, worker="w"))
    completed = StageCompleted(
        at=now,
        stage=Stage.ONNX,
        attempt=1,
        worker="w",
        artifact=made.artifact,
        report=made.artifact,
        toolchain=Toolchain(name="reference", version="1"),
        provenance=provenance,
    )
    await job.append(completed)
    return job


@pytest.fixture
def draining() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def promotions(
    bus: Bus, job_log: JobLog, store: ArtifactStore, file_store: FileStore, draining: asyncio.Event
) -> Promotions:
    return Promotions(job_log, store, file_store, presence=Presence(bus, PROMOTER, concurrency=1), draining=draining)


@contextlib.asynccontextmanager
async def consuming(bus: Bus, promotions: Promotions) -> AsyncIterator[None]:
    stop = asyncio.Event()
    consumer = asyncio.create_task(consume(bus, EVENTS, PROMOTER, promotions.handle, concurrency=1, stop=stop))
    try:
        yield
    finally:
        stop.set()
        await consumer


async def test_a_requested_promotion_is_uploaded_and_completed(
    bus: Bus, company: Company, promotions: Promotions, job: Job, made: Made
):
    async with consuming(bus, promotions):
        promotion = await job.ended(await job.request())
    assert promotion.status == "completed"
    assert company.files == {PATH: made.content}


async def test_a_statement_is_promoted_beside_its_artifact_and_before_it(
    company: Company, promotions: Promotions, signed_job: Job, made: Made
):
    promotion_id = await signed_job.request()
    await promotions.promote(signed_job.job_id, promotion_id)
    assert (await signed_job.promotion(promotion_id)).status == "completed"
    assert company.files == {f"{PATH}.intoto.jsonl": STATEMENT, PATH: made.content}
    assert [upload.path for upload in company.uploads] == [f"{PATH}.intoto.jsonl", PATH]
    assert company.uploads[0].headers["content-type"] == "application/vnd.in-toto.bundle"


@pytest.mark.parametrize("refused", [0, 1])
async def test_where_one_of_the_two_is_refused_the_artifact_is_not_there_and_asking_again_brings_both(
    company: Company, promotions: Promotions, signed_job: Job, made: Made, refused: int
):
    company.faults.extend([company.keep] * refused + [answering(403)])
    promotion_id = await signed_job.request()
    await promotions.promote(signed_job.job_id, promotion_id)
    assert (await signed_job.promotion(promotion_id)).error_code == "file_gateway_unavailable"
    assert PATH not in company.files
    await promotions.promote(signed_job.job_id, await signed_job.request())
    assert company.files == {f"{PATH}.intoto.jsonl": STATEMENT, PATH: made.content}


async def test_a_store_that_fails_between_the_two_is_asked_again(
    company: Company, promotions: Promotions, signed_job: Job, made: Made
):
    company.faults.extend([company.keep, reset_mid_body, answering(503)])
    promotion_id = await signed_job.request()
    await promotions.promote(signed_job.job_id, promotion_id)
    assert (await signed_job.promotion(promotion_id)).status == "completed"
    assert company.files == {f"{PATH}.intoto.jsonl": STATEMENT, PATH: made.content}


@pytest.mark.parametrize("key", [f"{'d/' * 500}{'n' * 20}", "n" * 250], ids=["key", "name"])
async def test_a_key_that_leaves_no_room_for_the_statements_is_promoted_without(
    company: Company, promotions: Promotions, signed_job: Job, made: Made, key: str
):
    promotion_id = await signed_job.request(key=key)
    await promotions.promote(signed_job.job_id, promotion_id)
    assert (await signed_job.promotion(promotion_id)).status == "completed"
    assert company.files == {f"/files/{key}": made.content}


async def test_a_promotion_that_has_ended_is_not_uploaded_again(company: Company, promotions: Promotions, job: Job):
    promotion_id = await job.request()
    await promotions.promote(job.job_id, promotion_id)
    await promotions.promote(job.job_id, promotion_id)
    assert company.kept == 1


@pytest.mark.parametrize(("status", "code"), [(403, "file_gateway_unavailable"), (401, "auth_service_unavailable")])
async def test_a_promotion_that_is_refused_fails_with_its_code_and_can_be_asked_for_again(
    company: Company, promotions: Promotions, job: Job, status: int, code: str
):
    async def refuse(exchange: Exchange) -> None:
        await exchange.answer(status)

    company.faults.extend([refuse, refuse] if status == 401 else [refuse])
    refused = await job.request()
    await promotions.promote(job.job_id, refused)
    assert (await job.promotion(refused)).status == "failed"
    assert (await job.promotion(refused)).error_code == code
    again = await job.request()
    await promotions.promote(job.job_id, again)
    assert (await job.promotion(again)).status == "completed"


async def test_a_promotion_past_its_deadline_fails_and_nothing_is_uploaded(
    company: Company, promotions: Promotions, job: Job
):
    promotion_id = await job.request(lives_s=-1)
    await promotions.promote(job.job_id, promotion_id)
    promotion = await job.promotion(promotion_id)
    assert (promotion.status, promotion.error_code) == ("failed", "file_gateway_unavailable")
    assert not company.uploads


async def test_a_promotion_that_was_closed_meanwhile_stays_closed(company: Company, promotions: Promotions, job: Job):
    promotion_id = await job.request()

    async def close_first(exchange: Exchange) -> None:
        failed = PromotionFailed(at=timestamp(), promotion_id=promotion_id, code="file_gateway_unavailable", message="")
        await job.append(failed)
        await company.keep(exchange)

    company.faults.append(close_first)
    await promotions.promote(job.job_id, promotion_id)
    assert (await job.promotion(promotion_id)).status == "failed"


async def test_an_artifact_that_is_gone_from_storage_fails_the_promotion(
    company: Company, promotions: Promotions, job: Job, store: ArtifactStore, made: Made
):
    await store.delete(made.artifact.object_key)
    promotion_id = await job.request()
    await promotions.promote(job.job_id, promotion_id)
    assert (await job.promotion(promotion_id)).error_code == "storage_unavailable"
    assert not company.uploads


async def test_storage_that_is_away_leaves_the_promotion_pending_for_a_later_try(
    company: Company, promotions: Promotions, job: Job, tmp_path: Path
):
    promotion_id = await job.request()
    (tmp_path / "objects").rename(tmp_path / "away")
    with pytest.raises(Transient):
        await promotions.promote(job.job_id, promotion_id)
    assert (await job.promotion(promotion_id)).status == "pending"
    (tmp_path / "away").rename(tmp_path / "objects")
    await promotions.promote(job.job_id, promotion_id)
    assert (await job.promotion(promotion_id)).status == "completed"


async def test_an_event_bus_that_is_away_at_the_last_bytes_is_not_blamed_on_the_file_store(
    bus: Bus, company: Company, promotions: Promotions, job: Job, made: Made, nats_server: NatsServer
):
    async def lose_the_bus(exchange: Exchange) -> None:
        await nats_server.kill()
        await exchange.body()

    promotion_id = await job.request()
    company.faults.append(lose_the_bus)
    with pytest.raises(EventBusUnavailable):
        await promotions.promote(job.job_id, promotion_id)
    assert (len(company.uploads), company.kept) == (1, 0)
    await nats_server.start()
    async with consuming(bus, promotions):
        assert (await job.ended(promotion_id)).status == "completed"
    assert company.files == {PATH: made.content}


async def test_a_promotion_of_a_job_that_does_not_exist_is_nothing_to_do(company: Company, promotions: Promotions):
    await promotions.promote(uuid7(), uuid7())
    assert not company.uploads


async def test_a_promotion_of_a_deleted_job_is_nothing_to_do(company: Company, promotions: Promotions, job: Job):
    await job.append(JobDeleted(at=timestamp(), reason="requested"))
    await promotions.promote(job.job_id, uuid7())
    assert not company.uploads


async def test_a_draining_worker_breaks_off_and_another_one_uploads(
    bus: Bus, company: Company, promotions: Promotions, job: Job, draining: asyncio.Event, made: Made
):
    async def drain(exchange: Exchange) -> None:
        draining.set()
        await asyncio.Event().wait()

    company.faults.append(drain)
    promotion_id = await job.request()
    async with consuming(bus, promotions):
        await asyncio.wait_for(draining.wait(), 10)
    assert (await job.promotion(promotion_id)).status == "pending"
    draining.clear()
    async with consuming(bus, promotions):
        assert (await job.ended(promotion_id)).status == "completed"
    assert company.files == {PATH: made.content}


class Service:
    """`python -m converter.promoter`."""

    def __init__(self, nats: NatsServer, company: Company, objects: Path) -> None:
        self.log = objects.with_name("promoter.log")
        self._environ = {
            "PATH": os.environ["PATH"],
            "NATS_URL": nats.url,
            "STORAGE_BACKEND": "local",
            "LOCAL_STORAGE_DIR": str(objects),
            "MEMBER_CENTER_TOKEN_URL": f"{company.url}/token",
            "KNERON_CONVERTER_CLIENT_ID": CLIENT[0],
            "KNERON_CONVERTER_CLIENT_SECRET": CLIENT[1],
            "FILE_ACCESS_AGENT_BASE_URL": company.url,
            "FILE_ACCESS_AGENT_AUDIENCE": "file-access-agent",
        }

    @contextlib.asynccontextmanager
    async def running(self, **environ: str) -> AsyncIterator[process.Process]:
        with self.log.open("ab") as output:
            command = [sys.executable, "-m", "converter.promoter"]
            started = await process.launch(command, environ=self._environ | environ, output=output)
        try:
            yield started
        finally:
            if started.returncode is None:
                started.send_signal(signal.SIGKILL)
            await started.wait()


@pytest.fixture
def service(nats_server: NatsServer, company: Company, tmp_path: Path) -> Service:
    return Service(nats_server, company, tmp_path / "objects")


async def test_the_service_promotes_and_stops_when_told(service: Service, company: Company, job: Job, made: Made):
    async with service.running() as promoter:
        assert (await job.ended(await job.request())).status == "completed"
        promoter.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(promoter.wait(), 10) == 0
    assert company.files == {PATH: made.content}


@pytest.mark.parametrize(
    "failpoint", ["before:store", "after:store", "before:publish", "after:publish", "before:ack", "after:ack"]
)
async def test_a_service_killed_at_any_step_leaves_a_promotion_that_completes(
    service: Service, company: Company, job: Job, made: Made, failpoint: str
):
    promotion_id = await job.request()
    async with service.running(FAILPOINT=failpoint) as promoter:
        assert await asyncio.wait_for(promoter.wait(), 20) == -signal.SIGKILL
    async with service.running():
        assert (await job.ended(promotion_id)).status == "completed"
    assert company.files == {PATH: made.content}


@pytest.mark.parametrize(
    ("variable", "what"),
    [("MEMBER_CENTER_TOKEN_URL", "the issuer"), ("FILE_ACCESS_AGENT_BASE_URL", "the file store")],
)
async def test_a_server_that_is_missing_at_the_start_is_named_and_ends_it(service: Service, variable: str, what: str):
    (nowhere,) = free_ports(1)
    async with service.running(**{variable: f"http://127.0.0.1:{nowhere}"}) as promoter:
        assert await asyncio.wait_for(promoter.wait(), 30) == 1
    lines = [json.loads(line) for line in service.log.read_text().splitlines() if "service.unreachable" in line]
    assert [(line["what"], line["address"]) for line in lines] == [(what, f"http://127.0.0.1:{nowhere}")]
