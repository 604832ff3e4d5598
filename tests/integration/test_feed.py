"""A feed's messages go to whoever waits, and back to the consumer where nobody does."""

from __future__ import annotations

import asyncio

import pytest
from jobs import created
from waiting import eventually

from converter.common.bus import Bus, EventBusUnavailable
from converter.common.eventlog import JobLog
from converter.common.topology import EVENTS, stage_durable
from converter.contracts.job import Stage
from converter.devstack.nats_server import NatsServer

DURABLE = stage_durable(Stage.ONNX)


async def post(job_log: JobLog, job_id: str) -> None:
    await job_log.append(job_id, lambda _: created(job_id))


async def test_what_comes_for_somebody_who_has_gone_is_the_next_one_s(bus: Bus, job_log: JobLog) -> None:
    async with bus.feed(EVENTS, DURABLE) as feed:
        gone, stays = (asyncio.create_task(feed.next(wait_s=10)) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        await post(job_log, "a")
        delivery = await stays
        assert delivery
        assert (delivery.subject, delivery.deliveries) == ("converter.v1.a.job.created", 1)


async def test_an_outage_leaves_no_requests_to_which_messages_come_when_nobody_waits(
    bus: Bus, job_log: JobLog, nats_server: NatsServer
) -> None:
    async def away() -> bool:
        return bus.connection_number is None

    async def back() -> bool:
        return bus.connection_number is not None

    async with bus.feed(EVENTS, DURABLE) as feed:
        await nats_server.kill()
        await eventually(away)
        for _ in range(2):
            with pytest.raises(EventBusUnavailable):
                await feed.next(wait_s=2)
        await nats_server.start()
        await eventually(back)
        for job_id in "abc":
            await post(job_log, job_id)
        for job_id in "abc":
            delivery = await feed.next(wait_s=10)
            assert delivery
            assert (delivery.subject, delivery.deliveries) == (f"converter.v1.{job_id}.job.created", 1)
