"""Messages are settled by what their handler says, and a worker that lives keeps its message."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

import pytest
from jobs import created
from waiting import all_settled, eventually

from converter.common.bus import Bus, Delivery
from converter.common.consumer import Handler, Rejected, Released, Transient, consume
from converter.common.eventlog import JobLog
from converter.common.service import Unreachable
from converter.common.topology import EVENTS, stage_durable
from converter.contracts.job import Stage

DURABLE = stage_durable(Stage.ONNX)


@contextlib.asynccontextmanager
async def consuming(bus: Bus, handle: Handler, *, concurrency: int = 1) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    task = asyncio.create_task(consume(bus, EVENTS, DURABLE, handle, concurrency=concurrency, stop=stop))
    try:
        yield stop
    finally:
        stop.set()
        await task


async def post(job_log: JobLog, *job_ids: str) -> None:
    for job_id in job_ids:
        await job_log.append(job_id, lambda _, job_id=job_id: created(job_id))  # type: ignore[misc]  # bound per loop


async def test_a_handler_that_returns_has_acknowledged(bus: Bus, job_log: JobLog) -> None:
    await post(job_log, "a", "b")
    handled: list[str] = []

    async def handle(delivery: Delivery) -> None:
        handled.append(delivery.subject)

    async with consuming(bus, handle):
        await eventually(partial(all_settled, bus, DURABLE))
    assert handled == ["converter.v1.a.job.created", "converter.v1.b.job.created"]


@pytest.mark.parametrize("problem", [Transient("away", delay_s=0.05), Released(), RuntimeError("a fault of ours")])
async def test_what_could_not_be_done_comes_again(bus: Bus, job_log: JobLog, problem: Exception) -> None:
    await post(job_log, "a")
    deliveries: list[int] = []

    async def handle(delivery: Delivery) -> None:
        deliveries.append(delivery.deliveries)
        if len(deliveries) == 1:
            raise problem

    async with consuming(bus, handle):
        await eventually(partial(all_settled, bus, DURABLE))
    assert deliveries == [1, 2]


async def test_a_rejected_message_is_set_aside_and_holds_nobody_up(bus: Bus, job_log: JobLog) -> None:
    await post(job_log, "poison", "good")
    handled: list[str] = []

    async def handle(delivery: Delivery) -> None:
        handled.append(delivery.subject)
        if "poison" in delivery.subject:
            raise Rejected("no")

    async with consuming(bus, handle):
        await eventually(partial(all_settled, bus, DURABLE))
    assert len(handled) == 2


async def test_long_work_keeps_its_message(bus: Bus, job_log: JobLog) -> None:
    await post(job_log, "a")
    deliveries: list[int] = []

    async def handle(delivery: Delivery) -> None:
        deliveries.append(delivery.deliveries)
        await asyncio.sleep(5)  # more than twice the server's ack_wait: what is tested is that time passes

    async with consuming(bus, handle, concurrency=2):
        await eventually(partial(all_settled, bus, DURABLE), within_s=15)
    assert deliveries == [1]


async def test_stopping_waits_for_what_is_under_way(bus: Bus, job_log: JobLog) -> None:
    await post(job_log, "a")
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def handle(_: Delivery) -> None:
        begun.set()
        await may_end.wait()

    async with consuming(bus, handle) as stop:
        await asyncio.wait_for(begun.wait(), 5)
        stop.set()
        assert not await all_settled(bus, DURABLE)
        may_end.set()
    assert await all_settled(bus, DURABLE)


async def test_a_consumer_that_was_not_provisioned_is_said_so(bus: Bus) -> None:
    with pytest.raises(Unreachable, match="consumer not found; run"):
        await consume(bus, EVENTS, "nobody", lambda _: asyncio.sleep(0), concurrency=1, stop=asyncio.Event())
