"""The configuration that is shipped starts, lets each service do its work, and names a key for each."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import nats
import nats.errors
import pytest
from deliveries import next_delivery
from jobs import AT, completed, created, started
from waiting import eventually

from converter.common.access import DOMAIN, OPERATOR, PROVISIONER, SERVICES
from converter.common.bus import Bus, EventBusUnavailable
from converter.common.eventlog import JobLog
from converter.common.lifecycle import State
from converter.common.nats_users import CONFIGURATION
from converter.common.provision import provision
from converter.common.service import Unreachable
from converter.common.settings import NatsSettings
from converter.common.topology import EVENTS, PROMOTER, SUBSCRIBER, Tuning, stage_durable
from converter.contracts.facts import JobCompleted, PromotionCompleted, PromotionRequested
from converter.contracts.job import STAGES, Stage
from converter.devstack.loopback import HOST, free_ports
from converter.devstack.process import Program, wheel_program

ROOT = Path(__file__).parents[2]
STORE = "store_dir: /data"
GATEWAY = "api-gateway"
Connect = Callable[[str], Awaitable[Bus]]


class Server(NamedTuple):
    """The server with the shipped configuration, and where it listens."""

    program: Program
    url: str


def make_users(directory: Path, *subscribers: str) -> str:
    """What the command says."""
    command = [sys.executable, "-m", "converter.common.nats_users", str(directory), *subscribers]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """As the container finds it: nats.conf, and accounts.conf beside it."""
    make_users(tmp_path / "users")
    shipped = (ROOT / "deploy" / "nats.conf").read_text()
    assert STORE in shipped
    (tmp_path / "nats.conf").write_text(shipped.replace(STORE, f'store_dir: "{tmp_path / "data"}"'))
    shutil.copy(tmp_path / "users" / CONFIGURATION, tmp_path)
    return tmp_path / "nats.conf"


@pytest.fixture
async def server(configuration: Path) -> AsyncIterator[Server]:
    """Only its addresses are the test's."""
    port, monitor = free_ports(2)
    log = configuration.with_name("log")

    async def serves(_pid: int) -> bool:
        return "Server is ready" in log.read_text()

    places = ["--addr", HOST, "--port", str(port), "--http_port", str(monitor)]
    program = Program(
        "nats-server",
        [wheel_program("nats-server"), "--config", str(configuration), *places],
        environ={"PATH": os.defpath},
        log=log,
        ready=serves,
    )
    await program.start()
    yield Server(program, f"nats://{HOST}:{port}")
    await program.kill()


@pytest.fixture
async def connect(server: Server, tmp_path: Path) -> AsyncIterator[Connect]:
    """Connects as a user."""
    buses: list[Bus] = []

    async def as_user(user: str) -> Bus:
        settings = NatsSettings(nats_url=server.url, nats_nkey_seed_file=tmp_path / "users" / f"{user}.seed")
        buses.append(await Bus.connect(settings, name=user))
        return buses[-1]

    yield as_user
    for bus in buses:
        await bus.close()


def test_the_server_takes_the_configuration(configuration: Path) -> None:
    command = [wheel_program("nats-server"), "-t", "-c", str(configuration)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert answer.returncode == 0, answer.stderr


def test_without_its_users_the_server_does_not_start(configuration: Path) -> None:
    (configuration.parent / CONFIGURATION).unlink()
    command = [wheel_program("nats-server"), "-t", "-c", str(configuration)]
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode != 0


async def test_a_job_takes_its_whole_course_with_each_service_as_its_own_user(
    server: Server, connect: Connect, tmp_path: Path
) -> None:
    await provision(await connect(PROVISIONER), Tuning())
    gateway = JobLog(await connect(GATEWAY), GATEWAY)
    await gateway.append("j", lambda _: created("j"))
    for stage in STAGES:
        name = stage_durable(stage)
        bus = await connect(name)
        delivery = await next_delivery(bus, EVENTS, name, wait_s=5)
        assert delivery, stage
        log = JobLog(bus, name)
        await log.append("j", lambda _, stage=stage: started(stage))
        await log.append("j", lambda _, stage=stage: completed(stage))
        await delivery.ack()
    await log.append("j", lambda _: JobCompleted(at=AT))
    requested = PromotionRequested(at=AT, promotion_id="p", source=Stage.NEF, target_object_key="k", deadline=AT)
    await gateway.append("j", lambda _: requested)
    bus = await connect(PROMOTER)
    delivery = await next_delivery(bus, EVENTS, PROMOTER, wait_s=5)
    assert delivery
    await JobLog(bus, PROMOTER).append("j", lambda _: PromotionCompleted(at=AT, promotion_id="p"))
    await delivery.ack()

    assert len(await JobLog(await connect(OPERATOR), OPERATOR).history("j")) == 10
    revisions = await as_subscriber(server, tmp_path / "users" / f"{SUBSCRIBER}.seed", SUBSCRIBER, count=10)
    assert revisions == list(range(1, 11))


async def as_subscriber(server: Server, seed: Path, name: str, *, count: int) -> list[int]:
    """The revisions in the first events that the subscriber is given."""
    client = await nats.connect(server.url, nkeys_seed_str=seed.read_text())
    try:
        consumer = await client.jetstream(domain=DOMAIN).pull_subscribe_bind(name, stream=EVENTS)
        messages = await consumer.fetch(count, timeout=10)
        for message in messages:
            await message.ack_sync()
        return [json.loads(message.data)["job"]["revision"] for message in messages]
    finally:
        await client.close()


async def test_a_subscriber_that_comes_later_is_served_after_a_second_reload_and_interrupts_nobody(
    server: Server, connect: Connect, tmp_path: Path
) -> None:
    provisioner = await connect(PROVISIONER)
    await provision(provisioner, Tuning())
    gateway = await connect(GATEWAY)
    await JobLog(gateway, GATEWAY).append("j", lambda _: created("j"))
    users = tmp_path / "users"
    make_users(users, SUBSCRIBER, "billing")
    shutil.copy(users / CONFIGURATION, tmp_path)
    await provision(provisioner, Tuning(subscribers=(SUBSCRIBER, "billing")))

    async def taken() -> list[int] | None:
        server.program.send_signal(signal.SIGHUP)  # nats-server 2.15 connects a new account's imports at the second
        with contextlib.suppress(nats.errors.Error):
            return await as_subscriber(server, users / "billing.seed", "billing", count=1)
        return None

    async def read() -> State:
        with contextlib.suppress(EventBusUnavailable):  # while the server still takes in the last reload
            return await JobLog(gateway, GATEWAY).read("j")
        return None

    assert await eventually(taken, within_s=40) == [1]
    assert await eventually(read)
    assert gateway.connection_number == 0


async def test_a_replaced_key_counts_from_the_reload_on_and_the_old_one_no_more(
    server: Server, connect: Connect, tmp_path: Path
) -> None:
    users = tmp_path / "users"
    (users / "promoter.seed").rename(users / "old.seed")
    (users / "promoter.public").unlink()
    said = make_users(users)
    assert [line.split()[1] for line in said.splitlines() if line.endswith("(new)")] == [PROMOTER]
    shutil.copy(users / CONFIGURATION, tmp_path)
    with pytest.raises(Unreachable, match="Authorization"):
        await connect(PROMOTER)

    server.program.send_signal(signal.SIGHUP)

    async def taken() -> Bus | None:
        with contextlib.suppress(Unreachable):
            return await connect(PROMOTER)
        return None

    assert await eventually(taken)
    with pytest.raises(Unreachable, match="Authorization"):
        await connect("old")
    assert await connect(GATEWAY), "the others keep theirs"


# nats-py leaves each socket that a server refused to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_service_whose_key_is_replaced_learns_that_there_is_no_way_back(server: Server, tmp_path: Path) -> None:
    users, lost = tmp_path / "users", asyncio.Event()
    settings = NatsSettings(nats_url=server.url, nats_nkey_seed_file=users / "old.seed")
    shutil.copy(users / "promoter.seed", users / "old.seed")
    async with await Bus.connect(settings, name=PROMOTER, on_lost=lost.set):
        for replaced in ("promoter.seed", "promoter.public"):
            (users / replaced).unlink()
        make_users(users)
        shutil.copy(users / CONFIGURATION, tmp_path)
        server.program.send_signal(signal.SIGHUP)
        async with asyncio.timeout(20):
            await lost.wait()
    gc.collect()


def test_keys_are_kept_private_and_may_be_elsewhere(tmp_path: Path) -> None:
    make_users(tmp_path, "billing")
    before = (tmp_path / CONFIGURATION).read_text()
    assert {file.stem for file in tmp_path.glob("*.seed")} == SERVICES | {"billing"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("*.seed")} == {0o600}
    assert not any(seed.read_text() in before for seed in tmp_path.glob("*.seed"))
    (tmp_path / "billing.seed").unlink()
    said = make_users(tmp_path, "billing")
    assert "(new)" not in said
    assert (tmp_path / CONFIGURATION).read_text() == before
    assert not (tmp_path / "billing.seed").exists()


@pytest.mark.parametrize("name", ["stage-onnx", "CONVERTER", "a.b", ">"])
def test_a_subscriber_cannot_have_a_services_name_or_what_is_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        make_users(tmp_path, name)
    assert name in refused.value.stderr
    assert not any(tmp_path.iterdir())
