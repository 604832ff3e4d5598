"""Disks that are full, and disks whose power is cut. Both take the right to mount."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

BLOCK = bytes(64 << 10)


async def run(*command: str | Path) -> str:
    """What `command` prints, once it has ended well."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {process.returncode}")
    return said.decode().strip()


@asynccontextmanager
async def small_disk(directory: Path, size_mb: int) -> AsyncIterator[Path]:
    """`directory`, made a disk of `size_mb` MiB in memory."""
    directory.mkdir(parents=True)
    await run("mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", directory)
    try:
        yield directory
    finally:
        await run("umount", "--lazy", directory)


@contextmanager
def filled(directory: Path) -> Iterator[None]:
    """There is no room at `directory` until the context ends, whatever others give back meanwhile."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:

        def fill() -> None:
            with contextlib.suppress(OSError):
                while True:
                    file.write(BLOCK)
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x")

        fill()
        loop = asyncio.get_running_loop()
        again: list[asyncio.TimerHandle] = []

        def keep_full() -> None:
            fill()
            again[:] = [loop.call_later(0.1, keep_full)]

        keep_full()
        try:
            yield
        finally:
            again[0].cancel()
            ballast.unlink()


class CutDisk:
    """An ext4 file system in a file, of which pictures can be taken as a power cut would leave it.

    What was written but not flushed lies in the kernel's memory and is not in the file, so a copy of the file is what
    the disk holds at that moment. Whoever writes is frozen meanwhile.
    """

    def __init__(self, directory: Path, size_mb: int = 256) -> None:
        self._directory, self._size_mb = directory, size_mb
        self._image, self.mounted = directory / "image", directory / "disk"

    @asynccontextmanager
    async def plugged(self) -> AsyncIterator[None]:
        """A new file system, mounted."""
        self._directory.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(self._size_mb << 20)
        await run("mkfs.ext4", "-q", "-F", self._image)
        self.mounted.mkdir()
        await self._mount()
        try:
            yield
        finally:
            await self._unmount()

    async def cut(self, freeze: Callable[[signal.Signals], None], kill: Callable[[], object]) -> None:
        """What the disk holds at this moment is all that is left; the writer is frozen for the copy, then killed."""
        freeze(signal.SIGSTOP)
        copy = self._directory / "copy"
        await run("cp", "--sparse=always", self._image, copy)
        done = kill()
        if asyncio.iscoroutine(done):
            await done
        await self._unmount()
        copy.rename(self._image)
        await self._mount()

    async def _mount(self) -> None:
        await run("mount", "-o", "loop", self._image, self.mounted)

    async def _unmount(self) -> None:
        await run("umount", self.mounted)
