"""Four models at once, each of the size on the axis: how far the gateway's resident memory rises above idle.

Idle is the gateway that has served one small upload. The peak is the kernel's own (`VmHWM`, reset before each round),
so that no moment is missed. What an earlier round has left allocated counts in the later ones, too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from gateway_stack import gateway_stack
from harness import Row, Side, Target
from transfers import Client, connected

AT_ONCE = 4
SIZES = (1, 10, 100, 500)
ABOVE = "MB above idle"


@contextlib.asynccontextmanager
async def sides(directory: Path) -> AsyncIterator[Sequence[Side]]:
    """The sizes."""
    async with gateway_stack(directory) as stack, connected(stack) as client:
        pid = stack.pids["api-gateway"]
        await client.post(1)
        idle = _memory_mb(pid, "VmRSS")
        yield [Side(str(megabytes), partial(_sent, client, pid, idle, megabytes)) for megabytes in SIZES]


async def _sent(client: Client, pid: int, idle: float, megabytes: int) -> Mapping[str, float]:
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc_pid_clear_refs(5): resets the peak
    await asyncio.gather(*(client.post(megabytes) for _ in range(AT_ONCE)))
    return {ABOVE: _memory_mb(pid, "VmHWM") - idle}


def _memory_mb(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024 / 1e6


ROW = Row(
    name="upload_memory",
    title="The gateway's memory under four uploads",
    text=__doc__ or "",
    sides=sides,
    targets=(
        Target(ABOVE, str(SIZES[-1]), at_most=150),
        Target(ABOVE, str(SIZES[-1]), str(SIZES[-2]), at_most=1.5),
    ),
    axis="MB of each model",
)
