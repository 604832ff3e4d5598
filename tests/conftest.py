"""Real servers for the tests that need them, each on free ports and with data of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import warm
from fault_matrix import pytest_collection_modifyitems, pytest_deselected, pytest_terminal_summary
from hypothesis import HealthCheck, settings

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.provision import provision
from converter.common.settings import NatsSettings
from converter.common.topology import Tuning
from converter.devstack import process
from converter.devstack.nats_server import NatsServer

__all__ = [
    "pytest_collection_modifyitems",
    "pytest_deselected",
    "pytest_terminal_summary",
]  # pytest finds its hooks here

ACK_WAIT_S = 2.0

# How long an example takes is the machine's affair: another process may have it for seconds.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


@pytest.fixture(scope="session", autouse=True)
def warm_starts() -> Iterator[None]:
    """Programs start from a warm interpreter, but for those of tests that look at a start itself (`cold_starts`)."""
    with closing(warm.Interpreter()) as interpreter, pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "launch", interpreter.launch)
        yield


@pytest.fixture(scope="module")
def cold_starts() -> Iterator[None]:
    """Programs start as people and containers start them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "launch", warm.cold)
        yield


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A provisioned server; a silent worker loses its message after `ACK_WAIT_S`."""
    server = NatsServer(tmp_path / "nats")
    await server.start()
    async with await Bus.connect(NatsSettings(nats_url=server.url), name="provisioner") as bus:
        await provision(bus, Tuning(ack_wait_s=ACK_WAIT_S))
    yield server
    await server.kill()


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    async with await Bus.connect(NatsSettings(nats_url=nats_server.url), name="test") as connected:
        yield connected


@pytest.fixture
def job_log(bus: Bus) -> JobLog:
    return JobLog(bus, "test")
