"""What a killed worker left on the disk goes with the next worker's start."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from waiting import eventually

from converter.common.stage import workdirs as module
from converter.common.stage.workdirs import PREFIX, SETTLED_S, workdirs


def grow_old(home: Path) -> None:
    then = time.time() - 2 * SETTLED_S
    os.utime(home, (then, then))


async def test_an_abandoned_place_is_removed_and_a_living_workers_is_not(tmp_path: Path) -> None:
    abandoned = tmp_path / f"{PREFIX}abandoned"
    abandoned.mkdir()
    (abandoned / "lock").touch()
    (abandoned / "model.onnx").write_bytes(b"large")
    async with workdirs(tmp_path) as living, living.one() as path:
        (path / "input").write_bytes(b"x")
        for home in tmp_path.iterdir():
            grow_old(home)
        async with workdirs(tmp_path):
            assert not abandoned.exists()
            assert (path / "input").exists()
    assert list(tmp_path.iterdir()) == []


async def test_what_a_worker_left_a_moment_ago_goes_while_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLED_S", 0.2)
    abandoned = tmp_path / f"{PREFIX}abandoned"
    abandoned.mkdir()
    (abandoned / "lock").touch()

    async def gone() -> bool:
        return not abandoned.exists()

    async with workdirs(tmp_path) as living, living.one() as path:
        assert abandoned.exists()
        await eventually(gone)
        assert path.exists()


async def test_what_is_not_a_workers_place_is_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / f"{PREFIX}foreign"
    foreign.mkdir()
    grow_old(foreign)
    async with workdirs(tmp_path):
        pass
    assert foreign.exists()


async def test_workers_that_start_at_once_do_not_trip_over_each_other(tmp_path: Path) -> None:
    for number in range(200):
        abandoned = tmp_path / f"{PREFIX}{number}"
        abandoned.mkdir()
        (abandoned / "lock").touch()
        grow_old(abandoned)

    async def start() -> None:
        async with workdirs(tmp_path):
            pass

    await asyncio.gather(*(start() for _ in range(16)))
    assert list(tmp_path.iterdir()) == []
