"""Each user of the event bus can do its work, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import nats
import nats.errors
import pytest
from deliveries import next_delivery
from jobs import created, started
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from waiting import eventually

from converter.common.access import DOMAIN, GATEWAY, OPERATOR, PROVISIONER, SERVICES, inbox
from converter.common.bus import Bus, BusRefused, EventBusUnavailable, Followed
from converter.common.eventlog import JobLog
from converter.common.nats_users import NatsUsers
from converter.common.provision import provision, remove_subscriber
from converter.common.service import Unreachable
from converter.common.settings import NatsSettings
from converter.common.topology import (
    ACTIVE_JOBS,
    EVENTS,
    JOBS_BY_USER,
    PROMOTER,
    SUBSCRIBER,
    Tuning,
    bucket_key,
    bucket_stream,
    stage_durable,
)
from converter.common.users import ActiveJobs, UserHasActiveJob, UserJobs
from converter.common.workers import Presence
from converter.contracts import subjects
from converter.contracts.job import STAGES, JobRecord, Stage
from converter.devstack.nats_server import NatsServer

OTHER_SUBSCRIBER = "billing"
SUBSCRIBERS = (SUBSCRIBER, OTHER_SUBSCRIBER)
ONNX, BIE, NEF = map(stage_durable, STAGES)
Connect = Callable[[str], Awaitable[Bus]]
Subscribe = Callable[[str], Awaitable[Client]]


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[NatsServer]:
    users = NatsUsers(tmp_path / "users", SUBSCRIBERS)
    server = NatsServer(tmp_path / "nats", more=users.accounts)
    await server.start()
    yield server
    await server.kill()


@pytest.fixture
async def connect(guarded: NatsServer, tmp_path: Path) -> AsyncIterator[Connect]:
    """Connects as one of the server's users."""
    users = NatsUsers(tmp_path / "users", SUBSCRIBERS)
    buses: list[Bus] = []

    async def as_user(user: str) -> Bus:
        settings = NatsSettings(nats_url=guarded.url, nats_nkey_seed_file=users.seed_files[user])
        buses.append(await Bus.connect(settings, name=user))
        return buses[-1]

    await provision(await as_user(PROVISIONER), Tuning(subscribers=SUBSCRIBERS))
    yield as_user
    for bus in buses:
        await bus.close()


@pytest.fixture
async def subscribe(connect: Connect, guarded: NatsServer, tmp_path: Path) -> AsyncIterator[Subscribe]:
    """Connects as a subscriber does: with a client of NATS and nothing of ours."""
    users = NatsUsers(tmp_path / "users", SUBSCRIBERS)
    clients: list[Client] = []

    async def as_subscriber(name: str) -> Client:
        clients.append(await nats.connect(guarded.url, nkeys_seed_str=users.seed(name), error_cb=ignored))
        return clients[-1]

    async def ignored(_: Exception) -> None:
        """What the server refuses is seen in what is stored."""

    yield as_subscriber
    for client in clients:
        await client.close()


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
    assert [entry.job_id async for entry in UserJobs(gateway).every()] == ["j"]
    heard: asyncio.Queue[Followed] = asyncio.Queue()
    async with asyncio.timeout(20), gateway.follow(EVENTS, 0, heard.put_nowait):
        assert (await heard.get()).subject == "converter.v1.j.job.created"

    delivery = await next_delivery(onnx, EVENTS, ONNX, wait_s=2)
    assert delivery
    await delivery.in_progress()
    async with Presence(onnx, ONNX, concurrency=1).shown(1):
        await JobLog(onnx, ONNX).append("j", lambda _: started(Stage.ONNX))
    await delivery.ack()
    operator = await connect(OPERATOR)
    assert (await operator.api(f"CONSUMER.INFO.{EVENTS}.{ONNX}"))["num_ack_pending"] == 0
    assert await JobLog(operator, OPERATOR).read("j")


async def test_a_removed_subscriber_has_no_consumer_any_more_and_a_new_one_reads_everything_anew(
    connect: Connect, subscribe: Subscribe
) -> None:
    provisioner = await connect(PROVISIONER)
    await JobLog(await connect(GATEWAY), GATEWAY).append("j", lambda _: created("j"))

    async def read() -> list[str]:
        jetstream = (await subscribe(OTHER_SUBSCRIBER)).jetstream(domain=DOMAIN)
        consumer = await jetstream.pull_subscribe_bind(OTHER_SUBSCRIBER, stream=EVENTS)
        messages = await consumer.fetch(1, timeout=5)
        for message in messages:
            await message.ack_sync()
        return [message.subject for message in messages]

    everything = await read()
    assert await remove_subscriber(provisioner, OTHER_SUBSCRIBER)
    assert await remove_subscriber(provisioner, OTHER_SUBSCRIBER) == []
    with pytest.raises(BusRefused):
        await provisioner.api(f"CONSUMER.INFO.{EVENTS}.{OTHER_SUBSCRIBER}")
    assert await provisioner.api(f"CONSUMER.INFO.{EVENTS}.{SUBSCRIBER}")
    await provision(provisioner, Tuning(subscribers=SUBSCRIBERS))
    assert await read() == everything == ["converter.v1.j.job.created"]


Attempt = Callable[[Bus], Awaitable[object]]
CONSUMER = {"stream_name": EVENTS, "config": {"deliver_subject": "mine", "ack_policy": "none"}}

FORBIDDEN: list[tuple[str, str, Attempt]] = [
    ("a stage completes another's stage", ONNX, lambda bus: bus.store("converter.v1.j.stage.completed.bie", b"")),
    ("a stage creates a job", ONNX, lambda bus: bus.store("converter.v1.j.job.created", b"")),
    ("a stage deletes a job", ONNX, lambda bus: bus.store("converter.v1.j.job.deleted", b"")),
    ("a stage takes another's messages", ONNX, lambda bus: next_delivery(bus, EVENTS, BIE, wait_s=0.2)),
    ("a stage moves a user's lock", ONNX, lambda bus: bus.store(bucket_key(ACTIVE_JOBS, "c.u"), b"")),
    ("a stage reads users' locks", ONNX, lambda bus: bus.last(bucket_stream(ACTIVE_JOBS), "$KV.active_jobs.>")),
    ("a stage shows as another's worker", ONNX, lambda bus: bus.store("$KV.workers.stage-bie.w", b"")),
    ("a gateway completes a stage", GATEWAY, lambda bus: bus.store("converter.v1.j.stage.completed.nef", b"")),
    ("a gateway completes a promotion", GATEWAY, lambda bus: bus.store("converter.v1.j.promotion.completed", b"")),
    ("a gateway fires a deadline", GATEWAY, lambda bus: bus.store(subjects.deadline_due("j"), b"")),
    ("a promoter requests a promotion", PROMOTER, lambda bus: bus.store("converter.v1.j.promotion.requested", b"")),
    ("a promoter fails a job", PROMOTER, lambda bus: bus.store("converter.v1.j.job.failed", b"")),
    ("an operator publishes an event", OPERATOR, lambda bus: bus.store("converter.v1.j.job.cancelled", b"")),
    *(
        (f"{user} follows", user, lambda bus: bus.api(f"CONSUMER.CREATE.{EVENTS}", CONSUMER))
        for user in sorted(SERVICES - {GATEWAY})
    ),
    ("a gateway follows the locks", GATEWAY, lambda bus: bus.api("CONSUMER.CREATE.KV_active_jobs", CONSUMER)),
    ("a provisioner publishes an event", PROVISIONER, lambda bus: bus.store("converter.v1.j.job.created", b"")),
    ("a provisioner reads a job", PROVISIONER, lambda bus: bus.last(EVENTS, "converter.v1.>")),
    *(
        (f"{user} {what}", user, lambda bus, verb=verb, body=body: bus.api(verb, body))
        for user in sorted(SERVICES - {PROVISIONER})
        for what, verb, body in (
            ("changes a consumer", f"CONSUMER.DURABLE.CREATE.{EVENTS}.{ONNX}", CONSUMER),
            ("deletes a consumer", f"CONSUMER.DELETE.{EVENTS}.{ONNX}", {}),
            ("changes the stream", f"STREAM.UPDATE.{EVENTS}", {"name": EVENTS}),
        )
    ),
    *(
        (f"{user} {what}", user, lambda bus, verb=verb, body=body: bus.api(verb, body))
        for user in sorted(SERVICES)
        for what, verb, body in (
            ("creates a named consumer", f"CONSUMER.CREATE.{EVENTS}.mine", CONSUMER),
            ("purges the events", f"STREAM.PURGE.{EVENTS}", {}),
            ("deletes an event", f"STREAM.MSG.DELETE.{EVENTS}", {"seq": 1}),
            ("deletes the stream", f"STREAM.DELETE.{EVENTS}", {}),
            ("copies the stream", f"STREAM.SNAPSHOT.{EVENTS}", {"deliver_subject": "mine"}),
        )
    ),
]


async def test_nobody_can_do_what_is_not_its_work(connect: Connect) -> None:
    buses = {user: await connect(user) for user in SERVICES}
    # What the server denies it does not answer.
    answers = await asyncio.gather(*(attempt(buses[user]) for _, user, attempt in FORBIDDEN), return_exceptions=True)
    assert [
        what
        for (what, _, _), answer in zip(FORBIDDEN, answers, strict=True)
        if not isinstance(answer, EventBusUnavailable)
    ] == []
    assert {user for _, user, _ in FORBIDDEN} == SERVICES


async def test_nobody_reads_another_s_inbox(subscribe: Subscribe) -> None:
    everybody = {user: await subscribe(user) for user in (*SERVICES, *SUBSCRIBERS)}
    inboxes = {
        (user, owner): await client.subscribe(f"{inbox(owner)}.>")
        for user, client in everybody.items()
        for owner in everybody
    }
    for user, client in everybody.items():
        await client.publish("$JS.API.INFO", reply=f"{inbox(user)}.answer")
        await client.flush()
        await inboxes[user, user].next_msg(timeout=5)
    for client in everybody.values():
        await client.flush()
    read = {reading for reading, subscription in inboxes.items() if subscription.pending_msgs}
    assert read == set()


async def test_nobody_acknowledges_another_s_message(connect: Connect, subscribe: Subscribe) -> None:
    await JobLog(await connect(GATEWAY), GATEWAY).append("j", lambda _: created("j"))
    assert await next_delivery(await connect(ONNX), EVENTS, ONNX, wait_s=5)
    operator = await connect(OPERATOR)

    async def unacknowledged() -> int:
        pending: int = (await operator.api(f"CONSUMER.INFO.{EVENTS}.{ONNX}"))["num_ack_pending"]
        return pending

    for user in (*(SERVICES - {ONNX}), *SUBSCRIBERS, ONNX):
        assert await unacknowledged() == 1, user
        client = await subscribe(user)
        await client.publish(f"$JS.ACK.{EVENTS}.{ONNX}.1.1.1.1.0")
        await client.flush()

    async def acknowledged() -> bool:
        return await unacknowledged() == 0

    assert await eventually(acknowledged), "the only one who may"


async def test_nobody_hears_what_is_not_for_it(connect: Connect, subscribe: Subscribe) -> None:
    """A subscription that is refused stays silent while one that is allowed hears."""
    heard: list[str] = []

    async def hear(subject: str, _payload: bytes) -> None:
        heard.append(subject)

    onnx, gateway, subscriber = await connect(ONNX), await connect(GATEWAY), await subscribe(SUBSCRIBER)
    everything = await subscriber.subscribe(">")
    await subscriber.flush()
    async with onnx.hear("converter.v1.>", hear), onnx.hear(f"{inbox(GATEWAY)}.>", hear):
        await onnx.round_trip()
        await gateway.emit(subjects.log(Stage.ONNX, "j"), b"{}")
        await UserJobs(gateway).add("c", "u", "j")
        await JobLog(gateway, GATEWAY).append("j", lambda _: created("j"))
        await onnx.round_trip()
    await subscriber.flush()
    assert [message.subject for message in await rest(everything)] == ["converter.v1.j.job.created"]
    assert heard == []


API = f"$JS.{DOMAIN}.API.CONSUMER"
NOTHING_HEARD_S = 0.5


async def rest(subscription: Subscription) -> list[Msg]:
    """What it has been sent and has not been asked for, and what comes until it is silent."""
    found: list[Msg] = []
    with contextlib.suppress(nats.errors.TimeoutError):
        while True:
            found.append(await subscription.next_msg(timeout=NOTHING_HEARD_S))
    return found


async def test_each_subscriber_gets_every_event_once_from_a_consumer_of_its_own(
    connect: Connect, subscribe: Subscribe
) -> None:
    gateway = JobLog(await connect(GATEWAY), GATEWAY)
    for job_id in ("i", "j"):
        await gateway.append(job_id, lambda _, job_id=job_id: created(job_id))
    operator = await connect(OPERATOR)
    for name in SUBSCRIBERS:
        consumer = await (await subscribe(name)).jetstream(domain=DOMAIN).pull_subscribe_bind(name, stream=EVENTS)
        messages = await consumer.fetch(10, timeout=5)
        assert [message.subject for message in messages] == [f"converter.v1.{job_id}.job.created" for job_id in "ij"]
        assert (await consumer.consumer_info()).num_ack_pending == len(messages)
        for message in messages:
            await message.ack_sync()
        assert (await operator.api(f"CONSUMER.INFO.{EVENTS}.{name}"))["ack_floor"]["stream_seq"] == len(messages)


async def test_a_request_for_messages_outlasts_heartbeats(connect: Connect, subscribe: Subscribe) -> None:
    """Older servers took an empty message for the last answer and let nothing after it through."""
    subscriber = await subscribe(SUBSCRIBER)
    answers = await subscriber.subscribe("answers")
    query = b'{"batch": 2, "expires": 20000000000, "idle_heartbeat": 200000000}'
    await subscriber.publish(f"{API}.MSG.NEXT.{EVENTS}.{SUBSCRIBER}", query, reply="answers")
    for _ in range(3):
        assert ((await answers.next_msg(timeout=10)).headers or {})["Status"] == "100"
    await JobLog(await connect(GATEWAY), GATEWAY).append("j", lambda _: created("j"))

    async def delivered() -> bool:
        return (await answers.next_msg(timeout=10)).subject == "converter.v1.j.job.created"

    assert await eventually(delivered)


OUT_OF_REACH = (
    f"{API}.MSG.NEXT.{EVENTS}.{ONNX}",
    f"{API}.MSG.NEXT.{EVENTS}.{OTHER_SUBSCRIBER}",
    f"{API}.INFO.{EVENTS}.{OTHER_SUBSCRIBER}",
    f"{API}.CREATE.{EVENTS}",
    f"{API}.DURABLE.CREATE.{EVENTS}.{SUBSCRIBER}",
    f"{API}.DELETE.{EVENTS}.{SUBSCRIBER}",
    *(
        f"$JS.{where}API.{verb}"
        for where in ("", f"{DOMAIN}.")
        for verb in (
            "INFO",
            "STREAM.NAMES",
            f"STREAM.INFO.{EVENTS}",
            f"STREAM.MSG.GET.{EVENTS}",
            f"STREAM.PURGE.{EVENTS}",
            "DIRECT.GET.KV_job_state.$KV.job_state.j",
        )
    ),
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.ACCOUNT.PING.CONNZ",
)


async def test_a_subscriber_reaches_its_own_consumer_and_nothing_else(connect: Connect, subscribe: Subscribe) -> None:
    await JobLog(await connect(GATEWAY), GATEWAY).append("j", lambda _: created("j"))
    subscriber = await subscribe(SUBSCRIBER)

    async def answer(subject: str) -> str:
        query = b'{"batch": 1, "no_wait": true}' if ".NEXT." in subject else b""
        try:
            return (await subscriber.request(subject, query, timeout=5)).data.decode()
        except nats.errors.NoRespondersError:
            return "nobody"

    refusals = ("nobody", "JetStream not enabled for account", '"num_connections":1,')
    for subject in OUT_OF_REACH:
        said = await answer(subject)
        assert any(refusal in said for refusal in refusals), f"{subject}: {said}"
    assert f'"name":"{SUBSCRIBER}"' in await answer(f"{API}.INFO.{EVENTS}.{SUBSCRIBER}")


async def test_a_subscriber_cannot_aim_an_answer_at_anything_outside_its_account(
    connect: Connect, subscribe: Subscribe
) -> None:
    gateway, operator, onnx = await connect(GATEWAY), await connect(OPERATOR), await connect(ONNX)
    log = JobLog(gateway, GATEWAY)
    await ActiveJobs(gateway, log).claim("c", "u", "j")
    for job_id in "jkl":
        await log.append(job_id, lambda _, job_id=job_id: created(job_id))
    delivery = await next_delivery(onnx, EVENTS, ONNX, wait_s=5)
    assert delivery
    subscriber, other = await subscribe(SUBSCRIBER), await subscribe(OTHER_SUBSCRIBER)
    others = await other.subscribe("_INBOX.>")
    await other.flush()

    async def stored() -> list[int]:
        streams = (EVENTS, *map(bucket_stream, (ACTIVE_JOBS, JOBS_BY_USER)))
        return [(await operator.api(f"STREAM.INFO.{stream}"))["state"]["last_seq"] for stream in streams]

    before = await stored()
    own = (
        (f"{API}.INFO.{EVENTS}.{SUBSCRIBER}", b""),
        (f"{API}.MSG.NEXT.{EVENTS}.{SUBSCRIBER}", b'{"batch": 1, "no_wait": true}'),
        (f"$JS.ACK.{EVENTS}.{SUBSCRIBER}.1.1.1.1.0", b"+NXT"),
        (f"$JS.ACK.{EVENTS}.{SUBSCRIBER}.1.1.1.1.0", b""),
        ("$JS.API.INFO", b""),
        ("converter.v1.j.job.deleted", b'{"fact": {}, "job": null}'),
    )
    targets = ("converter.v1.j.job.deleted", bucket_key(ACTIVE_JOBS, "c.u"), bucket_key(JOBS_BY_USER, "c.u.j"))
    for target in (*targets, "_INBOX.theirs", f"{inbox(GATEWAY)}.theirs"):
        arrived = await subscriber.subscribe(target)
        for subject, query in own:
            await subscriber.publish(subject, query, reply=target)
        await subscriber.publish(target, b"junk")
        await subscriber.flush()
        assert len(await rest(arrived)) >= len(own), "they were answered, in the subscriber's own account"
        await arrived.unsubscribe()
    assert await stored() == before
    assert await rest(others) == []

    # Acknowledging is refused on the way in, where it is another's message that would be acknowledged.
    acknowledgement = f"$JS.ACK.{EVENTS}.{ONNX}.1.1.1.1.0"
    await subscriber.publish(f"{API}.MSG.NEXT.{EVENTS}.{SUBSCRIBER}", b'{"no_wait": true}', reply=acknowledgement)
    await subscriber.publish(acknowledgement, b"")
    await subscriber.flush()
    assert (await operator.api(f"CONSUMER.INFO.{EVENTS}.{ONNX}"))["num_ack_pending"] == 1
    state = await log.read("j")
    assert isinstance(state, JobRecord)
    assert state.revision == 1
    with pytest.raises(UserHasActiveJob):
        await ActiveJobs(gateway, log).claim("c", "u", "next")
