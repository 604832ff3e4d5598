"""However a connection goes, callers are told in the one word that they know, on the services' own event loop."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from waiting import eventually

from converter.common.bus import Bus, EventBusUnavailable, healing
from converter.common.service import Unreachable
from converter.common.settings import NatsSettings
from converter.common.topology import EVENTS, HEALTH, bucket_key, stage_durable
from converter.contracts.job import Stage
from converter.devstack.nats_server import NatsServer

KEY = bucket_key(HEALTH, "test")


async def asked_of_a_feed(bus: Bus) -> None:
    async with bus.feed(EVENTS, stage_durable(Stage.ONNX)) as feed:
        await lose(bus)
        await feed.next(wait_s=0.2)


async def asked(bus: Bus, ask: Callable[[Bus], Awaitable[object]]) -> None:
    await lose(bus)
    await ask(bus)


WAYS: dict[str, Callable[[Bus], Awaitable[object]]] = {
    "store": lambda bus: asked(bus, lambda bus: bus.store(KEY, b"")),
    "last": lambda bus: asked(bus, lambda bus: bus.last(EVENTS, "converter.v1.j.>")),
    "batch_after": lambda bus: asked(bus, lambda bus: bus.batch_after(EVENTS, "converter.v1.>", 0, count=1)),
    "round_trip": lambda bus: asked(bus, lambda bus: bus.round_trip()),
    "feed": asked_of_a_feed,
}


async def lose(bus: Bus) -> None:
    """Close the connection at a moment when the library does not notice it, nor ever will."""
    client = bus._client  # noqa: SLF001 - no fault from outside meets that moment each time
    for task in (client._reading_task, client._ping_interval_task, client._flusher_task):  # noqa: SLF001
        task.cancel()
    client._transport._io_writer.transport.abort()  # noqa: SLF001
    await asyncio.sleep(0.05)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_asked_on_a_connection_that_goes_at_that_moment_is_unavailable(nats_url: str, way: str):
    async def ask() -> None:
        async with await Bus.connect(NatsSettings(nats_url=nats_url), name="test") as bus:
            with pytest.raises(EventBusUnavailable):
                await WAYS[way](bus)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask())


def test_a_connection_that_the_library_has_given_up_without_a_word_is_begun_anew(
    nats_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(healing, "LOOK_S", 0.1)

    async def heal() -> None:
        async with await Bus.connect(NatsSettings(nats_url=nats_url), name="test") as bus:
            await lose(bus)
            assert bus.connection_number == 0, "the library holds it to be well"

            async def stored() -> bool:
                with suppress(EventBusUnavailable):
                    return bool(await bus.store(KEY, b""))
                return False

            assert await eventually(stored, within_s=20)
            assert bus.connection_number == 1

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(heal())


def interruptions() -> float:
    return REGISTRY.get_sample_value("converter_bus_interruptions_total") or 0


async def test_a_connection_that_is_lost_is_an_interruption_and_one_that_is_closed_is_none(nats_server: NatsServer):
    before = interruptions()

    async def one_more() -> bool:
        return interruptions() == before + 1

    settings = NatsSettings(nats_url=nats_server.url)
    with capture_logs() as lines:
        async with await Bus.connect(settings, name="test"):
            pass
        assert (lines, interruptions()) == ([], before)
        async with await Bus.connect(settings, name="test"):
            await nats_server.kill()
            assert await eventually(one_more)
    assert "bus.disconnected" in [line["event"] for line in lines]


async def ignore(_subject: str, _payload: bytes) -> None:
    pass


async def test_a_connection_that_ends_for_good_is_told_without_the_password_of_its_address(tmp_path: Path):
    # The library gives up for good where the server refuses it one subscription more.
    more = 'authorization { user: "svc", password: "s3cret" }\nmax_subscriptions: 1\n'
    server, lost = NatsServer(tmp_path / "nats", more=more), asyncio.Event()
    await server.start()
    try:
        settings = NatsSettings(nats_url=server.url.replace("//", "//svc:s3cret@"))
        with capture_logs() as lines:
            async with (
                asyncio.timeout(10),
                await Bus.connect(settings, name="test", on_lost=lost.set) as bus,
                bus.hear("one.more", ignore),
            ):
                await lost.wait()
    finally:
        await server.stop()
    addresses = [line["address"] for line in lines if line["event"] == "bus.lost"]
    assert addresses == [server.url.replace("//", "//…@")]


@pytest.mark.parametrize("hard", [True, False])
async def test_why_a_server_refuses_is_told_rather_than_how_it_hung_up_thereafter(*, hard: bool):
    refused = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal refused
        refused += 1
        if refused == 1:
            writer.write(b'INFO {"server_id":"a","version":"2.12.0","max_payload":1000}\r\n')
            await reader.readuntil(b"PING\r\n")
            writer.write(b"-ERR 'Authorization Violation'\r\n")
            await writer.drain()
        elif hard:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unreachable, match="Authorization Violation"):
            await Bus.connect(NatsSettings(nats_url=f"nats://127.0.0.1:{port}"), name="test")
    assert refused > 1


@pytest.fixture
async def nats_url(nats_server: NatsServer) -> str:
    return nats_server.url
