"""Work beside other work goes on when it has failed, and ends with what it goes on beside."""

from __future__ import annotations

import asyncio

import pytest
from waiting import eventually

from converter.common import background as module
from converter.common.background import Repeated, background


class Faltering:
    """Fails the first time, then works for ever."""

    def __init__(self) -> None:
        self.begun = self.cancelled = 0

    async def work(self) -> None:
        self.begun += 1
        if self.begun == 1:
            raise RuntimeError("the handler is closed")
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled += 1

    async def is_at_it_again(self) -> bool:
        return self.begun > 1


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.01)


async def test_work_that_fails_is_begun_anew_and_ends_with_its_context():
    faltering = Faltering()
    async with background(faltering.work):
        await eventually(faltering.is_at_it_again)
    assert (faltering.begun, faltering.cancelled) == (2, 1)


async def test_work_that_ends_is_not_begun_anew():
    ended = 0

    async def work() -> None:
        nonlocal ended
        ended += 1

    async with background(work):
        await asyncio.sleep(0.1)
    assert ended == 1


async def test_a_heartbeat_that_fails_once_is_not_the_last():
    beats = 0

    async def beat() -> None:
        nonlocal beats
        beats += 1
        if beats == 2:
            raise RuntimeError("the handler is closed")

    async def beaten() -> bool:
        return beats > 4

    async with Repeated(beat, 0.01):
        await eventually(beaten)
