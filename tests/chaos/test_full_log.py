"""The event log is full while jobs run: callers are told, nothing is lost, and jobs go on by themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from converter.common.access import PROVISIONER
from converter.common.bus import Bus
from converter.common.provision import provision
from converter.common.settings import NatsSettings
from converter.common.topology import EVENTS, Tuning
from converter.devstack.stack import Stack

from .clients import SWEPT
from .suffering import suffer

pytestmark = pytest.mark.timeout(240)

ACK_WAIT_S = 1.5


@asynccontextmanager
async def full_event_log(stack: Stack) -> AsyncIterator[None]:
    """The log may not grow any more."""
    seed = stack.directory / "nats-users" / f"{PROVISIONER}.seed"
    settings = NatsSettings(nats_url=stack.variables["NATS_URL"], nats_nkey_seed_file=seed)
    async with await Bus.connect(settings, name=PROVISIONER) as bus:
        size_bytes = (await bus.api(f"STREAM.INFO.{EVENTS}"))["state"]["bytes"]
        await provision(bus, Tuning(ack_wait_s=ACK_WAIT_S, events_max_bytes=size_bytes))
        try:
            yield
        finally:
            await provision(bus, Tuning(ack_wait_s=ACK_WAIT_S))


async def test_jobs_go_on_by_themselves_after_the_event_log_was_full(tmp_path: Path) -> None:
    settings = {
        "API_V1_RATE_LIMIT_MAX": "1000000",
        "STAGE_ACK_WAIT_S": str(ACK_WAIT_S),
        "CLAIM_GRACE_S": "2",
        **SWEPT,
    }
    async with Stack(tmp_path / "stack", settings=settings) as stack:
        await suffer(stack, tmp_path, 1, full_event_log(stack), {(507, "event_bus_full")})
