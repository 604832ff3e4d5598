"""A former release beside this one: services are replaced by steps, and on again, while jobs run; nothing is lost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from pathlib import Path

import httpx
import msgspec
import pytest
import pytest_asyncio
import releases

from converter.common.access import GATEWAY
from converter.common.bus import Bus
from converter.common.settings import NatsSettings
from converter.common.topology import EVENTS
from converter.contracts import subjects
from converter.contracts.job import timestamp
from converter.devstack.stack import Stack

from .clients import SWEPT, Client
from .observer import Ledger, Message, history, left_wrong

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

SETTINGS = {"API_V1_RATE_LIMIT_MAX": "1000000", "STAGE_ACK_WAIT_S": "1.5", "CLAIM_GRACE_S": "2", **SWEPT}
STEPS = (
    ("api-gateway.1", "stage-bie.1", "stage-nef"),
    ("stage-onnx", "promoter"),
    ("api-gateway.2", "stage-bie.2"),
)
"""Each release meets the other beside itself, before itself and behind itself in a job's course."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    workers = {"gateway": 2, "bie": 2}
    async with Stack(tmp_path_factory.mktemp("stack"), workers=workers, settings=SETTINGS) as running:
        yield running


async def replaced(stack: Stack, names: tuple[str, ...], variables: Mapping[str, str]) -> None:
    """End the services and start them with `variables`."""

    async def one(name: str) -> None:
        await stack.stop(name)
        await stack.start(name, env=variables)

    await asyncio.gather(*map(one, names))


def signed(message: Message) -> bool:
    """Whether this release made what the event tells of: the former one knew of no signed statements."""
    return bool(message.fact.get("provenance"))


def kept(messages: list[Message]) -> bool:
    """Whether what only this release knows is in every record after the one that it was first in."""
    told = {message.fact["stage"]: number for number, message in enumerate(messages) if signed(message)}
    records = [message.job["stages"] for message in messages if message.job]
    return all(stages[stage].get("provenance") for stage, at in told.items() for stages in records[at:])


async def test_services_are_replaced_by_steps_and_back_while_jobs_run(stack: Stack, tmp_path: Path) -> None:
    former = releases.unpacked(releases.OLDEST, tmp_path / "former")
    with closing(Ledger(tmp_path / "ledger")) as ledger:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            client = Client(stack, http, ledger, seed=1)
            async with asyncio.TaskGroup() as users:
                for way, variables in (("back", former), ("on", {})):
                    for step, names in enumerate(STEPS):
                        users.create_task(client.convert(f"{way}-{step}", f"{way}-{step}", "nef"))
                        await replaced(stack, names, variables)
                    job_id, _ = await client.convert(way, way, "nef")
                    await client.promote(job_id, "nef", f"{way}.nef")
        wrong = await left_wrong(stack, ledger)
        assert not wrong
        histories = [await history(stack.bus, job_id) for job_id in ledger.accepted]

    assert {messages[-1].job and messages[-1].job["status"] for messages in histories} == {"completed"}
    by = [[signed(message) for message in messages if message.kind == "stage.completed"] for messages in histories]
    assert any(map(all, by)), "there was a time when every stage was of this release"
    assert not all(map(any, by)), "and one when every stage was of the former one"
    assert any(any(each) and not all(each) for each in by), "and one when both worked on the same job"
    assert all(map(kept, histories))


async def test_an_event_of_a_type_that_only_a_newer_release_knows_stops_nobody(stack: Stack, tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "ledger")) as ledger:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            client = Client(stack, http, ledger, seed=2)
            stack.send_signal("stage-onnx", signal.SIGSTOP)
            job_id = await client.post("of-a-newer-type", "of-a-newer-type", "nef")
            await note(stack, job_id)
            stack.send_signal("stage-onnx", signal.SIGCONT)
            assert (await client.end(job_id))["status"] == "completed"
    events = await history(stack.bus, job_id)
    assert events[1].kind == "job.noted"
    assert {event.job and event.job.get("receipt") for event in events[1:]} == {"kept"}


async def note(stack: Stack, job_id: str) -> None:
    """Publish, as a gateway would, an event of a type and with a field of the record that nobody here knows."""
    seed = NatsSettings(
        nats_url=stack.env["NATS_URL"], nats_nkey_seed_file=stack.directory / "nats-users" / f"{GATEWAY}.seed"
    )
    root = subjects.job_root(job_id)
    async with await Bus.connect(seed, name=GATEWAY) as bus:
        last = await stack.bus.last(EVENTS, root)
        assert last is not None
        job = msgspec.json.decode(last.data)["job"]
        job |= {"revision": job["revision"] + 1, "receipt": "kept"}
        noted = msgspec.json.encode({"fact": {"type": "job.noted", "at": timestamp(), "note": "x"}, "job": job})
        await bus.store(
            f"converter.v1.{job_id}.job.noted",
            noted,
            headers=dict(last.headers) | {"Nats-Msg-Id": "of-a-newer-type", "ce-type": "converter.job.noted.v1"},
            expected=last.sequence,
            expected_on=root,
        )
