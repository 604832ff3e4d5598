"""Who holds a lease works; when it stops renewing, another does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from faults import Proxy
from waiting import eventually

from converter.common.background import background
from converter.common.bus import Bus, EventBusUnavailable
from converter.common.lease import Lease
from converter.common.settings import NatsSettings
from converter.common.topology import LEASES, bucket_key, bucket_stream
from converter.devstack.nats_server import NatsServer


class Candidate:
    """Tells whether it works now."""

    def __init__(self) -> None:
        self.works = False

    @asynccontextmanager
    async def standing(self, bus: Bus) -> AsyncIterator[None]:
        async with background(lambda: Lease(bus, "chores").while_held(self._work)):
            yield

    async def _work(self) -> None:
        self.works = True
        try:
            await asyncio.Event().wait()
        finally:
            self.works = False


def when(condition: Callable[[], bool]) -> Awaitable[bool]:
    async def look() -> bool:
        return condition()

    return eventually(look)


@pytest.fixture
async def candidates() -> tuple[Candidate, Candidate]:
    return Candidate(), Candidate()


async def test_one_of_two_works_and_the_other_follows_when_it_ends(
    bus: Bus, candidates: tuple[Candidate, Candidate]
) -> None:
    one, other = candidates

    async def renewals() -> int:
        found = await bus.last(bucket_stream(LEASES), bucket_key(LEASES, "chores"))
        return found.sequence if found else 0

    async with AsyncExitStack() as first:
        await first.enter_async_context(one.standing(bus))
        await when(lambda: one.works)
        async with other.standing(bus):
            enough = await renewals() + 4  # three to a lease's life

            async def renewed() -> bool:
                return await renewals() >= enough

            await eventually(renewed)
            assert one.works
            assert not other.works
            await first.aclose()
            assert not one.works
            await when(lambda: other.works)


async def test_a_holder_that_is_cut_off_stops_and_another_takes_over(
    bus: Bus, nats_server: NatsServer, candidates: tuple[Candidate, Candidate]
) -> None:
    one, other = candidates
    port = int(nats_server.url.rpartition(":")[2])
    async with Proxy(port) as proxy:
        settings = NatsSettings(nats_url=f"nats://127.0.0.1:{proxy.port}")
        async with await Bus.connect(settings, name="test") as cut_off, one.standing(cut_off):
            await when(lambda: one.works)
            async with other.standing(bus):
                proxy.hold_requests = True
                await when(lambda: other.works)
                await when(lambda: not one.works)
            proxy.hold_requests = False
            proxy.cut()

            async def back() -> bool:
                with contextlib.suppress(EventBusUnavailable):
                    return bool(await cut_off.round_trip())
                return False

            await eventually(back)


async def test_a_lease_that_somebody_else_has_taken_is_lost_at_the_next_renewal(
    bus: Bus, candidates: tuple[Candidate, Candidate]
) -> None:
    one, _ = candidates
    subject = bucket_key(LEASES, "chores")
    async with one.standing(bus):
        await when(lambda: one.works)
        await bus.store(subject, b"somebody else")
        await when(lambda: not one.works)
        found = await bus.last(bucket_stream(LEASES), subject)
        assert found is None or found.data == b"somebody else"
        await when(lambda: one.works)
