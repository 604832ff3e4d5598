"""What processes that died have left is gone after one sweep, and nothing else; over both kinds of storage."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import jobs
import pytest
from faults import Proxy
from msgspec.structs import replace
from waiting import eventually

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.identifiers import uuid7
from converter.common.lifecycle import Deleted
from converter.common.provision import provision
from converter.common.settings import NatsSettings
from converter.common.storage import ArtifactStore, StorageUnavailable, open_local, open_s3
from converter.common.topology import LEASES, Tuning, bucket_key, bucket_stream
from converter.common.users import ActiveJobs, UserJobs
from converter.contracts.facts import AnyFact, JobCancelled, JobDeleted
from converter.contracts.job import JobRecord, Stage, StoredObject, timestamp
from converter.devstack.loopback import origin
from converter.devstack.nats_server import NatsServer
from converter.devstack.seaweedfs import SeaweedFs
from converter.gateway.janitor.sweep import Janitor, Limits, Swept
from converter.gateway.uploads import Uploads

from .conftest import Form, GatewayProcess, Issuer, function_fixture, in_s3, module_fixture, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

NEVER, AT_ONCE = timedelta(days=1000), timedelta(0)
FAR_AWAY = "2999-01-01T00:00:00.000Z"
OFTEN = {"JANITOR_INTERVAL_S": "0.2"}
IMPATIENT = OFTEN | {"UPLOAD_LIMIT_HOURS": "0.0003", "CLAIM_GRACE_S": "0.5"}
"""Takes what is older than 1.6 s for abandoned."""


@module_fixture
async def nats(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsServer]:
    """A lease ends one second after its holder."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    await server.start()
    async with await Bus.connect(NatsSettings(nats_url=server.url), name="provisioner") as bus:
        await provision(bus, Tuning(ack_wait_s=1.5))
    yield server
    await server.kill()


@dataclass(frozen=True)
class Place:
    """A storage of its own, and how a gateway is told to use it."""

    store: ArtifactStore
    variables: dict[str, str]


@function_fixture
async def s3_place(s3: SeaweedFs) -> AsyncIterator[Place]:
    async with open_s3(s3.url, s3.bucket, access_key=s3.access_key, secret_key=s3.secret_key) as store:
        for prefix in ("jobs/", "uploads/", "probe/"):
            await store.delete_prefix(prefix)
        yield Place(store, in_s3(s3))


@pytest.fixture
def directory(tmp_path: Path) -> Place:
    return Place(open_local(tmp_path / "objects"), {})


@pytest.fixture(params=["s3", "local"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        return Place(open_local(tmp_path / "objects"), {})
    of_s3: Place = request.getfixturevalue("s3_place")
    return of_s3


@function_fixture
async def bus(nats: NatsServer) -> AsyncIterator[Bus]:
    async with await Bus.connect(NatsSettings(nats_url=nats.url), name="test") as connected:
        yield connected


@pytest.fixture
def job_log(bus: Bus) -> JobLog:
    return JobLog(bus, "test")


def janitor(
    bus: Bus,
    store: ArtifactStore,
    *,
    upload: timedelta = NEVER,
    creation: timedelta = NEVER,
    probe: timedelta = NEVER,
    resumable: timedelta = NEVER,
) -> Janitor:
    job_log = JobLog(bus, "janitor")
    return Janitor(
        store=store,
        job_log=job_log,
        active_jobs=ActiveJobs(bus, job_log),
        user_jobs=UserJobs(bus),
        uploads=Uploads(store, resumable),
        limits=Limits(upload=upload, creation=creation, probe=probe),
    )


async def keys(store: ArtifactStore, prefix: str = "") -> set[str]:
    return {info.object_key async for info in store.list(prefix)}


async def open_uploads(store: ArtifactStore) -> list[str]:
    return [upload.object_key async for upload in store.open_uploads()]


class Posted:
    """A job as a gateway leaves it, whose later events the test writes."""

    def __init__(self, bus: Bus, place: Place) -> None:
        self.job_id, self.user = uuid7(), f"user-{uuid7()}"
        self._bus, self._store, self._log = bus, place.store, JobLog(bus, "test")

    async def create(self, *facts: AnyFact, expires_at: str = FAR_AWAY) -> None:
        await UserJobs(self._bus).add("client", self.user, self.job_id)
        await ActiveJobs(self._bus, self._log).claim("client", self.user, self.job_id)
        await self.store("input/model.onnx")
        fact = jobs.created(self.job_id, last_stage=Stage.ONNX, user_id=self.user)
        await self.happen(replace(fact, expires_at=expires_at), *facts)

    async def happen(self, *facts: AnyFact) -> None:
        for fact in facts:
            await self._log.append(self.job_id, lambda _, fact=fact: fact)  # type: ignore[misc]  # a default for mypy

    async def store(self, *names: str) -> None:
        for name in names:
            await self._store.put(f"jobs/{self.job_id}/{name}", b"x")

    async def names(self) -> set[str]:
        prefix = f"jobs/{self.job_id}/"
        return {key.removeprefix(prefix) for key in await keys(self._store, prefix)}

    async def is_gone(self) -> bool:
        """Deleted in the log, without an object, an entry in the index, or a lock that points to it."""
        return (
            isinstance(await self._log.read(self.job_id), Deleted)
            and not await self.names()
            and not [entry async for entry in UserJobs(self._bus).every() if entry.job_id == self.job_id]
            and await ActiveJobs(self._bus, self._log).holder("client", self.user) is None
        )

    async def end(self) -> AnyFact:
        return (await self._log.history(self.job_id))[-1].fact


@pytest.fixture
def posted(bus: Bus, place: Place) -> Posted:
    return Posted(bus, place)


DONE = (jobs.started(Stage.ONNX), jobs.completed(Stage.ONNX))


async def test_a_job_past_its_time_is_deleted_and_then_all_that_was_its_own(bus: Bus, place: Place, posted: Posted):
    await posted.create(*DONE, expires_at=jobs.AT)
    await posted.store("onnx/1/artifact", "onnx/1/report")
    swept = await janitor(bus, place.store).sweep()
    assert swept == Swept(expired_jobs=1, index_entries=1, objects_of_deleted_jobs=3)
    fact = await posted.end()
    assert isinstance(fact, JobDeleted)
    assert fact.reason == "expired"
    assert await posted.is_gone()
    assert await janitor(bus, place.store).sweep() == Swept()


async def test_a_user_whose_expired_job_is_forgotten_posts_another(bus: Bus, place: Place, posted: Posted):
    await posted.create(*DONE, expires_at=jobs.AT)
    await janitor(bus, place.store).sweep()
    users, following = ActiveJobs(bus, JobLog(bus, "test")), uuid7()
    await users.claim("client", posted.user, following)
    held = await users.holder("client", posted.user)
    assert held
    assert held.job_id == following


async def test_what_is_not_past_its_time_or_has_not_ended_stays(bus: Bus, place: Place, job_log: JobLog):
    kept, active = Posted(bus, place), Posted(bus, place)
    await kept.create(*DONE)
    await active.create(DONE[0], expires_at=jobs.AT)
    await active.store("onnx/1/artifact", "onnx/7/artifact")
    before = await keys(place.store)
    assert await janitor(bus, place.store, creation=AT_ONCE, upload=AT_ONCE, probe=AT_ONCE).sweep() == Swept()
    assert await keys(place.store) == before
    assert all([isinstance(await job_log.read(job.job_id), JobRecord) for job in (kept, active)])
    await kept.happen(JobDeleted(at=timestamp(), reason="requested"))
    await active.happen(JobCancelled(at=timestamp()))
    await janitor(bus, place.store).sweep()
    assert await active.is_gone()
    assert await kept.is_gone()


async def test_attempts_that_did_not_count_go_and_the_rest_of_the_job_stays(bus: Bus, place: Place, posted: Posted):
    again = (jobs.started(Stage.ONNX, 2, "other"), jobs.completed(Stage.ONNX, 2, posted.job_id))
    await posted.create(jobs.started(Stage.ONNX), *again)
    counted = {"onnx/2/artifact", "onnx/2/report", "onnx/2/log"}
    await posted.store(*counted, "onnx/1/artifact", "onnx/1/log")
    assert await janitor(bus, place.store).sweep() == Swept(objects_of_lost_attempts=2)
    assert await posted.names() == counted | {"input/model.onnx"}
    await posted.store("onnx/1/report")  # a worker that was asleep
    assert await janitor(bus, place.store).sweep() == Swept(objects_of_lost_attempts=1)
    await posted.happen(JobDeleted(at=timestamp(), reason="requested"))
    await janitor(bus, place.store).sweep()


async def test_a_copy_that_broke_off_before_the_only_attempt_converted_goes(bus: Bus, place: Place, posted: Posted):
    await posted.create(jobs.started(Stage.ONNX), jobs.completed(Stage.ONNX, job_id=posted.job_id))
    counted = {"onnx/1/artifact", "onnx/1/report"}
    await posted.store(*counted, "onnx/1/reused/artifact")
    assert await janitor(bus, place.store).sweep() == Swept(objects_of_lost_attempts=1)
    assert await posted.names() == counted | {"input/model.onnx"}
    await posted.happen(JobDeleted(at=timestamp(), reason="requested"))
    await janitor(bus, place.store).sweep()


async def test_what_a_sleeping_worker_stores_for_a_deleted_job_goes_too(bus: Bus, place: Place, posted: Posted):
    await posted.create(*DONE, JobDeleted(at=timestamp(), reason="requested"))
    await janitor(bus, place.store).sweep()
    await posted.store("onnx/1/artifact")
    assert await janitor(bus, place.store).sweep() == Swept(objects_of_deleted_jobs=1)


async def test_a_job_that_was_never_created_cannot_be_any_more(bus: Bus, place: Place, posted: Posted, job_log: JobLog):
    await UserJobs(bus).add("client", posted.user, posted.job_id)
    await posted.store("input/model.onnx")
    assert await janitor(bus, place.store).sweep() == Swept()
    swept = await janitor(bus, place.store, creation=AT_ONCE).sweep()
    assert swept == Swept(never_created_jobs=1, index_entries=1, objects_of_deleted_jobs=1)
    assert await posted.is_gone()
    assert await janitor(bus, place.store, creation=AT_ONCE).sweep() == Swept()
    assert isinstance(await job_log.read(posted.job_id), Deleted)


async def test_probes_go_by_their_age(bus: Bus, place: Place):
    for name in ("probe/1", "probe/2"):
        await place.store.put(name, b"x")
    assert await janitor(bus, place.store).sweep() == Swept()
    assert await janitor(bus, place.store, probe=timedelta(seconds=-2)).sweep() == Swept(probes=2)


async def test_resumable_uploads_go_by_their_own_time(bus: Bus, place: Place):
    await Uploads(place.store, NEVER).create("visiona", 10, "m.onnx")
    assert await janitor(bus, place.store).sweep() == Swept()
    assert await janitor(bus, place.store, resumable=AT_ONCE).sweep() == Swept(resumable_uploads=1)
    assert await janitor(bus, place.store, resumable=AT_ONCE).sweep() == Swept()


async def test_open_uploads_go_by_their_age_but_not_an_active_jobs(bus: Bus, place: Place, posted: Posted):
    await posted.create(DONE[0])
    stale = timedelta(seconds=-2)
    async with (
        place.store.writer(f"jobs/{posted.job_id}/onnx/1/artifact") as of_active_job,
        place.store.writer(f"jobs/{uuid7()}/input/model.onnx") as abandoned,
    ):
        await of_active_job.write(bytes(8 << 20))
        await abandoned.write(bytes(8 << 20))
        assert await janitor(bus, place.store).sweep() == Swept()
        assert await janitor(bus, place.store, upload=stale).sweep() == Swept(open_uploads=1)
        assert isinstance(await of_active_job.commit(), StoredObject)
    await posted.happen(JobCancelled(at=timestamp()), JobDeleted(at=timestamp(), reason="requested"))
    await janitor(bus, place.store).sweep()


async def test_things_of_others_are_left_alone_and_stop_nothing(bus: Bus, place: Place, posted: Posted):
    others = {"jobs/readme", "jobs/not-a-job/x", "jobs/5f64f3a1-0000-4000-8000-000000000000/x", "uploads/a/b/c"}
    for key in others:
        await place.store.put(key, b"x")
    await posted.create(*DONE, expires_at=jobs.AT)
    everything = janitor(bus, place.store, creation=AT_ONCE, upload=AT_ONCE, resumable=AT_ONCE)
    assert (await everything.sweep()).expired_jobs == 1
    assert await keys(place.store) == others


async def test_an_outage_of_the_storage_ends_a_sweep_and_the_next_one_goes_on(bus: Bus, s3: SeaweedFs, tmp_path: Path):
    async with open_s3(s3.url, s3.bucket, access_key=s3.access_key, secret_key=s3.secret_key) as store:
        posted = Posted(bus, Place(store, {}))
        await posted.create(*DONE, expires_at=jobs.AT)
        await s3.kill()
        swept = await janitor(bus, store).sweep()
        assert swept.expired_jobs == 1
        assert swept.objects_of_deleted_jobs == 0
        assert isinstance(await posted.end(), JobDeleted)
        await s3.start()

        async def sweeps() -> bool:
            try:
                await store.probe()
            except StorageUnavailable:
                return False
            await janitor(bus, store).sweep()
            return await posted.is_gone()

        await eventually(sweeps, within_s=60)


async def test_what_cannot_be_removed_keeps_nothing_else_from_going(bus: Bus, s3: SeaweedFs):
    """A job whose record makes no sense, then one of which the storage refuses every deletion, then a third."""
    async with (
        Proxy(s3.port) as way,
        open_s3(origin(way.port), s3.bucket, access_key=s3.access_key, secret_key=s3.secret_key) as store,
    ):
        place = Place(store, {})
        senseless, stubborn, other = (Posted(bus, place) for _ in range(3))
        await senseless.create(*DONE, expires_at="2026-13-45T00:00:00.000Z")
        for posted in (stubborn, other):
            await posted.create(*DONE, expires_at=jobs.AT)
        key = f"<Key>jobs/{stubborn.job_id}".encode()
        way.change_requests = (key, key.replace(b"Key", b"Not"))
        swept = await janitor(bus, store).sweep()
        # Each of the two was met twice: as listed, and as stored.
        assert (swept.left, swept.expired_jobs, swept.index_entries) == (4, 2, 1)
        assert await other.is_gone()
        assert await stubborn.names() == {"input/model.onnx"}
        way.change_requests = (b"", b"")
        await janitor(bus, store).sweep()
        assert await stubborn.is_gone()
        await senseless.happen(JobDeleted(at=timestamp(), reason="requested"))
        await janitor(bus, store).sweep()


async def test_a_silent_event_bus_keeps_only_from_what_needs_it(nats: NatsServer, bus: Bus, directory: Place):
    await Uploads(directory.store, NEVER).create("visiona", 10, "m.onnx")
    nats.send_signal(signal.SIGSTOP)
    try:
        assert await janitor(bus, directory.store, resumable=AT_ONCE).sweep() == Swept(resumable_uploads=1)
    finally:
        nats.send_signal(signal.SIGCONT)


async def dead(gateway: GatewayProcess) -> bool:
    return gateway.process.returncode == -signal.SIGKILL


async def test_a_gateway_that_dies_between_deletion_and_removal_leaves_nothing_for_long(
    nats: NatsServer, shared_issuer: Issuer, directory: Place, bus: Bus, tmp_path: Path, form: Form, model: bytes
):
    objects = tmp_path / "objects"
    async with (
        running(nats, shared_issuer, objects, tmp_path, FAILPOINT="before:remove") as doomed,
        doomed.client() as client,
    ):
        job = (await form.post(client, model)).json()
        assert (await client.post(f"/api/v1/jobs/{job['job_id']}/cancel")).status_code == 202
        with pytest.raises(httpx.TransportError):
            await client.delete(f"/api/v1/jobs/{job['job_id']}")
        await eventually(lambda: dead(doomed))
    assert isinstance(await JobLog(bus, "test").read(job["job_id"]), Deleted)
    assert await keys(directory.store, f"jobs/{job['job_id']}/")
    async with running(nats, shared_issuer, objects, tmp_path, **OFTEN):
        await eventually(lambda: nothing_of(bus, directory, "visiona", form.user_id), within_s=60)


async def nothing_of(bus: Bus, place: Place, client_id: str, user_id: str) -> bool:
    """Nothing of any job is stored or open, and the user has neither a listed job nor a lock."""
    return (
        not await keys(place.store, "jobs/")
        and not await open_uploads(place.store)
        and not [entry async for entry in UserJobs(bus).every() if entry.user == f"{client_id}.{user_id}"]
        and await ActiveJobs(bus, JobLog(bus, "test")).holder(client_id, user_id) is None
    )


async def test_a_janitor_that_dies_right_after_an_expiry_leaves_nothing_for_long(
    nats: NatsServer, shared_issuer: Issuer, directory: Place, bus: Bus, tmp_path: Path
):
    posted = Posted(bus, directory)
    await posted.create(*DONE, expires_at=jobs.AT)
    objects = tmp_path / "objects"
    async with running(nats, shared_issuer, objects, tmp_path, FAILPOINT="before:remove") as doomed:
        await eventually(lambda: dead(doomed), within_s=60)
    assert isinstance(await posted.end(), JobDeleted)
    assert await posted.names() == {"input/model.onnx"}
    async with running(nats, shared_issuer, objects, tmp_path):
        await eventually(posted.is_gone, within_s=60)


async def test_a_gateway_that_dies_right_before_a_creation_leaves_nothing_for_long(
    nats: NatsServer, shared_issuer: Issuer, directory: Place, bus: Bus, tmp_path: Path, form: Form, model: bytes
):
    objects = tmp_path / "objects"
    async with (
        running(nats, shared_issuer, objects, tmp_path, FAILPOINT="before:create") as doomed,
        doomed.client() as client,
    ):
        with pytest.raises(httpx.TransportError):
            await form.post(client, model)
        await eventually(lambda: dead(doomed))
    (job_id,) = {key.split("/")[1] for key in await keys(directory.store, "jobs/")}
    async with running(nats, shared_issuer, objects, tmp_path, **IMPATIENT):
        await eventually(lambda: nothing_of(bus, directory, "visiona", form.user_id), within_s=60)
    (event,) = await JobLog(bus, "test").history(job_id)
    assert isinstance(event.fact, JobDeleted)
    assert event.fact.reason == "superseded"


async def test_a_gateway_that_is_killed_in_mid_upload_leaves_nothing_for_long(
    nats: NatsServer, shared_issuer: Issuer, place: Place, bus: Bus, tmp_path: Path
):
    objects = tmp_path / "objects"
    async with running(nats, shared_issuer, objects, tmp_path, **place.variables) as doomed:
        _, writer = await asyncio.open_connection("127.0.0.1", doomed.port)
        head = (
            f"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {doomed.issuer.token()}\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000000\r\n\r\n"
            '--b\r\nContent-Disposition: form-data; name="model"; filename="m.onnx"\r\n\r\n'
        )
        # A documentation string of 64 MB, which is a field that a model may have.
        writer.write(head.encode() + b"\x32\x80\x80\x80\x20" + bytes(24 << 20))
        await eventually(lambda: open_uploads(place.store), within_s=60)
        doomed.process.send_signal(signal.SIGKILL)
        await doomed.process.wait()
        writer.transport.abort()
    assert await open_uploads(place.store)
    async with running(nats, shared_issuer, objects, tmp_path, **place.variables, **IMPATIENT):
        await eventually(lambda: nothing_of(bus, place, "visiona", "nobody"), within_s=60)


async def holder(bus: Bus) -> int | None:
    """The process id of the gateway that has the janitor's lease."""
    found = await bus.last(bucket_stream(LEASES), bucket_key(LEASES, "janitor"))
    return int(found.data.decode().split("-")[-2]) if found and found.data else None


async def test_of_two_gateways_one_sweeps_and_the_other_follows_when_it_is_killed(
    nats: NatsServer, shared_issuer: Issuer, bus: Bus, tmp_path: Path
):
    place = Place(open_local(tmp_path / "objects"), {})
    async with (
        running(nats, shared_issuer, tmp_path / "objects", tmp_path, **OFTEN) as one,
        running(nats, shared_issuer, tmp_path / "objects", tmp_path, **OFTEN) as two,
    ):

        async def one_of_them() -> int | None:
            pid = await holder(bus)  # may be one that was killed before, until its lease ends
            return pid if pid in {one.process.pid, two.process.pid} else None

        pid = await eventually(one_of_them, within_s=60)
        first = Posted(bus, place)
        await first.create(*DONE, expires_at=jobs.AT)
        await eventually(first.is_gone, within_s=60)
        assert await holder(bus) == pid

        os.kill(pid, signal.SIGKILL)
        (left,) = {one.process.pid, two.process.pid} - {pid}

        async def taken_over() -> bool:
            return await holder(bus) == left

        await eventually(taken_over, within_s=60)
        second = Posted(bus, place)
        await second.create(*DONE, expires_at=jobs.AT)
        await eventually(second.is_gone, within_s=60)
