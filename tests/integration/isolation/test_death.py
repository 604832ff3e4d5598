"""No process outlives the one that is responsible for it, and nothing is left open."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import psutil
import pytest
from integration.isolation.bench import Bench
from waiting import eventually

from converter.common.isolation import Converted

SERVICE = Path(__file__).with_name("doomed_service.py")
TESTS = Path(__file__).parents[2]


def ended(pid: int) -> bool:
    """Gone, or a zombie: where this container's first process reaps nobody, an orphan stays one."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
async def test_a_service_that_is_killed_leaves_no_process(tmp_path: Path, by: signal.Signals):
    service = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SERVICE), str(tmp_path)), stdout=PIPE, env={"PYTHONPATH": str(TESTS)}
    )
    assert service.stdout is not None
    pids = [int(pid) for pid in (await asyncio.wait_for(service.stdout.readline(), 10)).split()]
    assert len(pids) == 4  # the warden, two converters, and what one of these started
    assert not any(map(ended, pids))
    service.send_signal(by)
    await service.wait()

    async def all_ended() -> bool:
        return all(map(ended, pids))

    await eventually(all_ended, within_s=5)


async def test_two_hundred_conversions_leave_no_descriptor_and_no_process(bench: Bench):
    assert isinstance(await bench.run("converts"), Converted)
    service = psutil.Process()
    (warden,) = (child for child in service.children() if "converter.common.isolation.warden" in child.cmdline())

    def open_now() -> tuple[int, int, int]:
        return service.num_fds(), warden.num_fds(), len(warden.children(recursive=True))

    before = open_now()
    for _ in range(50):
        outcomes = await asyncio.gather(*map(bench.run, ("converts", "refuses", "exits_at_once", "leaves_children")))
        assert isinstance(outcomes[0], Converted)

    async def as_before() -> bool:
        return open_now() == before

    await eventually(as_before)
