"""Jobs go on when a node of a three-node event bus dies, freezes, or is cut off from the others.

The bus knows its users, as in production: each service is one, and a subscriber follows from an account of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AbstractAsyncContextManager, closing, suppress

import httpx
import pytest
import pytest_asyncio
from waiting import eventually

from converter.common.access import GATEWAY
from converter.common.bus import Bus, EventBusUnavailable, healing
from converter.common.nats_users import NatsUsers
from converter.common.settings import NatsSettings
from converter.common.topology import EVENTS, HEALTH, SUBSCRIBER, bucket_key
from converter.devstack.stack import Stack

from .clients import Client
from .cluster import NODES, NatsCluster
from .observer import Ledger, history, left_wrong
from .subscriber import Subscriber

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

FAULT_S = 8.0
"""Longer than a new leader takes to be found."""
SETTINGS = {"API_V1_RATE_LIMIT_MAX": "1000000", "NATS_REPLICAS": "3", "STAGE_ACK_WAIT_S": "6", "CLAIM_GRACE_S": "5"}
"""A worker may lose its message while there is no leader; then it is fenced, and another attempt is made."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    tmp_path_factory: pytest.TempPathFactory, cluster: NatsCluster, users: NatsUsers
) -> AsyncIterator[Stack]:
    replaced = {"NATS_URL": cluster.url}
    async with Stack(tmp_path_factory.mktemp("stack"), settings=SETTINGS, replaced=replaced, users=users) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def subscriber(stack: Stack, cluster: NatsCluster, users: NatsUsers) -> AsyncIterator[Subscriber]:
    subscriber = Subscriber()
    async with subscriber.following(cluster.url, users.seed(SUBSCRIBER)):
        yield subscriber


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path_factory.mktemp("clients") / "ledger")) as opened:
        yield opened


@pytest.mark.parametrize("fault", ["killed", "frozen", "apart"])
async def test_jobs_go_on_when_the_leader_of_the_events_is(
    cluster: NatsCluster, stack: Stack, subscriber: Subscriber, ledger: Ledger, fault: str
) -> None:
    leader = await cluster.leader(stack.bus, EVENTS)
    suffering: AbstractAsyncContextManager[None] = getattr(cluster, fault)(leader)
    before = len(ledger.accepted)
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http, asyncio.TaskGroup() as users:
        client = Client(stack, http, ledger, seed=1)
        for user in range(3):
            users.create_task(client.one_after_the_other(f"{fault}{user}", 2))
        async with suffering:
            await asyncio.sleep(FAULT_S)
    assert len(ledger.accepted) == before + 6
    told = {message.event_id for job_id in ledger.accepted for message in await history(stack.bus, job_id)}

    async def heard_of_all() -> bool:
        return told <= set(subscriber.got)

    await eventually(heard_of_all, within_s=60)


async def test_a_service_leaves_a_node_that_is_cut_off_and_stays_where_a_leader_is_being_found(
    cluster: NatsCluster, stack: Stack, users: NatsUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = await cluster.leader(stack.bus, EVENTS)
    other = next(name for name in NODES if name != alone)

    def connected(node: str) -> Awaitable[Bus]:
        """To `node`, which tells of the others."""
        settings = NatsSettings(nats_url=cluster.nodes[node].url, nats_nkey_seed_file=users.seed_files[GATEWAY])
        return Bus.connect(settings, name=GATEWAY)

    async with await connected(other) as staying:
        monkeypatch.setattr(healing, "LOOK_S", 0.5)
        async with await connected(alone) as leaving, cluster.apart(alone):

            async def stored() -> bool:
                with suppress(EventBusUnavailable):
                    return bool(await leaving.store(bucket_key(HEALTH, "left"), b""))
                return False

            await eventually(stored, within_s=60)
            assert leaving.connection_number, "it goes on from server to server while none knows of a leader"
        assert staying.connection_number == 0


async def test_after_all_of_that_everything_holds(stack: Stack, ledger: Ledger) -> None:
    """Looked at last, because the bucket job_state lags by half a minute when its source has lost its leader."""
    wrong = await left_wrong(stack, ledger, within_s=90)
    assert not wrong
