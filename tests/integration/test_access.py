"""Each user of the event bus can do its work, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from jobs import created, started

from converter.common.access import OPERATOR, PROVISIONER, SUBSCRIBER, inbox
from converter.common.bus import Bus, EventBusUnavailable
from converter.common.eventlog import JobLog
from converter.common.provision import provision
from converter.common.service import Unreachable
from converter.common.settings import NatsSettings
from converter.common.topology import (
    ACTIVE_JOBS,
    EVENTS,
    PROMOTER,
    Tuning,
    bucket_key,
    bucket_stream,
    stage_durable,
)
from converter.common.users import ActiveJobs, UserJobs
from converter.common.workers import Presence
from converter.contracts import subjects
from converter.contracts.job import Stage
from converter.devstack.nats_server import NatsServer
from converter.devstack.nats_users import NatsUsers

GATEWAY, ONNX, BIE = "api-gateway", stage_durable(Stage.ONNX), stage_durable(Stage.BIE)
Connect = Callable[[str], Awaitable[Bus]]


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[NatsServer]:
    server = NatsServer(tmp_path / "nats", authorization=NatsUsers(tmp_path / "users").authorization)
    await server.start()
    yield server
    await server.kill()


@pytest.fixture
async def connect(guarded: NatsServer, tmp_path: Path) -> AsyncIterator[Connect]:
    """Connects as one of the server's users."""
    users = NatsUsers(tmp_path / "users")
    buses: list[Bus] = []

    async def as_user(user: str) -> Bus:
        settings = NatsSettings(nats_url=guarded.url, nats_nkey_seed_file=users.seed_files[user])
        buses.append(await Bus.connect(settings, name=user))
        return buses[-1]

    await provision(await as_user(PROVISIONER), Tuning())
    yield as_user
    for bus in buses:
        await bus.close()


async def test_a_stranger_cannot_connect(guarded: NatsServer) -> None:
    with pytest.raises(Unreachable, match="Authorization"):
        await Bus.connect(NatsSettings(nats_url=guarded.url), name="stranger")


async def test_everybody_can_do_its_work(connect: Connect) -> None:
    gateway, onnx = await connect(GATEWAY), await connect(ONNX)
    await UserJobs(gateway).add("c", "u", "j")
    log = JobLog(gateway, GATEWAY)
    await ActiveJobs(gateway, log).claim("c", "u", "j")
    await log.append("j", lambda _: created("j"))
    assert await UserJobs(gateway).newest_first("c", "u") == ["j"]

    delivery = await onnx.next_delivery(EVENTS, ONNX, wait_s=2)
    assert delivery
    await delivery.in_progress()
    async with Presence(onnx, ONNX, concurrency=1).shown(1):
        await JobLog(onnx, ONNX).append("j", lambda _: started(Stage.ONNX))
    await delivery.ack()
    operator = await connect(OPERATOR)
    assert (await operator.api(f"CONSUMER.INFO.{EVENTS}.{ONNX}"))["num_ack_pending"] == 0
    assert await JobLog(operator, OPERATOR).read("j")


Attempt = Callable[[Bus], Awaitable[object]]
CONSUMER = {"stream_name": EVENTS, "config": {"deliver_subject": "mine", "ack_policy": "none"}}

FORBIDDEN: list[tuple[str, str, Attempt]] = [
    ("a stage completes another's stage", ONNX, lambda bus: bus.store("converter.v1.j.stage.completed.bie", b"")),
    ("a stage creates a job", ONNX, lambda bus: bus.store("converter.v1.j.job.created", b"")),
    ("a stage deletes a job", ONNX, lambda bus: bus.store("converter.v1.j.job.deleted", b"")),
    ("a stage takes another's messages", ONNX, lambda bus: bus.next_delivery(EVENTS, BIE, wait_s=0.2)),
    ("a stage moves a user's lock", ONNX, lambda bus: bus.store(bucket_key(ACTIVE_JOBS, "c.u"), b"")),
    ("a stage reads users' locks", ONNX, lambda bus: bus.last(bucket_stream(ACTIVE_JOBS), "$KV.active_jobs.>")),
    ("a stage shows as another's worker", ONNX, lambda bus: bus.store("$KV.workers.stage-bie.w", b"")),
    ("a gateway completes a stage", GATEWAY, lambda bus: bus.store("converter.v1.j.stage.completed.nef", b"")),
    ("a gateway completes a promotion", GATEWAY, lambda bus: bus.store("converter.v1.j.promotion.completed", b"")),
    ("a gateway fires a deadline", GATEWAY, lambda bus: bus.store(subjects.deadline_due("j"), b"")),
    ("a promoter requests a promotion", PROMOTER, lambda bus: bus.store("converter.v1.j.promotion.requested", b"")),
    ("a promoter fails a job", PROMOTER, lambda bus: bus.store("converter.v1.j.job.failed", b"")),
    ("an operator publishes an event", OPERATOR, lambda bus: bus.store("converter.v1.j.job.cancelled", b"")),
    ("a subscriber publishes an event", SUBSCRIBER, lambda bus: bus.store("converter.v1.j.job.cancelled", b"")),
    ("a subscriber reads users' locks", SUBSCRIBER, lambda bus: bus.last(bucket_stream(ACTIVE_JOBS), "$KV.>")),
    ("a provisioner publishes an event", PROVISIONER, lambda bus: bus.store("converter.v1.j.job.created", b"")),
    ("a provisioner reads a job", PROVISIONER, lambda bus: bus.last(EVENTS, "converter.v1.>")),
    *(
        (f"{user} {what}", user, lambda bus, verb=verb, body=body: bus.api(verb, body))
        for user in (GATEWAY, ONNX, PROMOTER, OPERATOR, SUBSCRIBER)
        for what, verb, body in (
            ("creates a consumer", f"CONSUMER.CREATE.{EVENTS}", CONSUMER),
            ("changes a consumer", f"CONSUMER.DURABLE.CREATE.{EVENTS}.{ONNX}", CONSUMER),
            ("deletes a consumer", f"CONSUMER.DELETE.{EVENTS}.{ONNX}", {}),
            ("purges the events", f"STREAM.PURGE.{EVENTS}", {}),
            ("deletes the stream", f"STREAM.DELETE.{EVENTS}", {}),
            ("changes the stream", f"STREAM.UPDATE.{EVENTS}", {"name": EVENTS}),
        )
    ),
]


@pytest.mark.parametrize("user", [GATEWAY, ONNX, PROMOTER, OPERATOR, SUBSCRIBER, PROVISIONER])
async def test_nobody_can_do_what_is_not_its_work(connect: Connect, user: str) -> None:
    bus = await connect(user)
    tried = [(what, attempt(bus)) for what, who, attempt in FORBIDDEN if who == user]
    # What the server denies it does not answer.
    answers = await asyncio.gather(*(attempt for _, attempt in tried), return_exceptions=True)
    names = [what for what, _ in tried]
    assert [
        name for name, answer in zip(names, answers, strict=True) if not isinstance(answer, EventBusUnavailable)
    ] == []


async def test_nobody_hears_what_is_not_for_it(connect: Connect) -> None:
    """A subscription that is refused stays silent while one that is allowed hears."""
    heard: list[str] = []

    async def hear(subject: str, _payload: bytes) -> None:
        heard.append(subject)

    onnx, subscriber, gateway = await connect(ONNX), await connect(SUBSCRIBER), await connect(GATEWAY)
    contexts: list[AbstractAsyncContextManager[None]] = [
        onnx.hear("converter.v1.>", hear),
        onnx.hear(f"{inbox(GATEWAY)}.>", hear),
        subscriber.hear("$KV.>", hear),
        subscriber.hear(">", hear),
        subscriber.hear(subjects.LOG, hear),
    ]
    allowed: list[str] = []

    async def hear_allowed(subject: str, _payload: bytes) -> None:
        allowed.append(subject)

    for context in contexts:
        await context.__aenter__()
    async with subscriber.hear("converter.v1.>", hear_allowed):
        await subscriber.round_trip()
        await JobLog(gateway, GATEWAY).append("j", lambda _: created("j"))
        await UserJobs(gateway).add("c", "u", "j")
        await subscriber.round_trip()
        await onnx.round_trip()
    for context in contexts:
        await context.__aexit__(None, None, None)
    assert allowed == ["converter.v1.j.job.created"]
    assert heard == []
