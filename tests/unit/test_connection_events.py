"""When a connection to NATS counts as lost for good."""

from __future__ import annotations

import pytest
from nats.errors import Error

from converter.common.bus import connection_events
from converter.common.bus.connection_events import REFUSED_S, ConnectionEvents

REFUSED = Error("nats: 'Authorization Violation'")


@pytest.mark.parametrize(
    ("moments_s", "is_lost"),
    [
        ((0.0, 2.0, REFUSED_S - 0.1), False),
        ((0.0, 2.0, 4.0, REFUSED_S), True),
        ((0.0, 61.0), False),  # refused, gone for a minute, refused while it starts
        ((0.0, 61.0, 64.0, 66.0), True),
    ],
)
async def test_servers_may_refuse_for_some_seconds(
    moments_s: tuple[float, ...], *, is_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[float] = []
    now = 100.0
    monkeypatch.setattr(connection_events.time, "monotonic", lambda: now)
    events = ConnectionEvents("nats://localhost", lambda: lost.append(now))
    events.open = True
    for moment_s in moments_s:
        now = 100.0 + moment_s
        await events.on_error(REFUSED)
    assert lost == ([now] if is_lost else [])


async def test_who_connects_again_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(connection_events.time, "monotonic", lambda: now)
    events = ConnectionEvents("nats://localhost", lambda: pytest.fail("it is not lost"))
    events.open = True
    for moment_s in (0.0, 4.0, 6.0):
        now = 100.0 + moment_s
        await events.on_error(REFUSED)
        await events.on_reconnect()
