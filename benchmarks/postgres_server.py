"""A real PostgreSQL 15 on loopback, from Debian's package, for peers that keep their jobs in it."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from pipeline import Durability

from converter.devstack.loopback import HOST, free_ports
from converter.devstack.process import Program

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
USER = "postgres"
FSYNC = {Durability.KILL: "off", Durability.POWER: "on"}
"""Without fsync a commit is written to the file all the same, and so outlives any process.

`synchronous_commit=off` would be something else: it answers before the write, and a killed server loses that.
"""


class PostgresServer(Program):
    """One server with its data in `directory`; as it refuses to be root, root starts it as its package's user."""

    def __init__(self, directory: Path, durability: Durability) -> None:
        self._data = directory / "data"
        self._port = free_ports(1)[0]
        self.url = f"postgresql://{USER}@{HOST}:{self._port}/postgres"
        options = {
            "fsync": FSYNC[durability],
            "listen_addresses": HOST,
            "port": str(self._port),
            "shared_buffers": "1GB",  # its guide: a quarter of the memory
            "unix_socket_directories": "",
        }
        settings = (part for name, value in options.items() for part in ("-c", f"{name}={value}"))
        super().__init__(
            "postgres",
            [*_as_its_user(), str(PROGRAMS / "postgres"), "-D", str(self._data), *settings],
            environ={"PATH": os.defpath},
            log=directory / "postgres.log",
            ready=self._accepts,
        )

    async def start(self) -> None:
        """Make the cluster of databases, start, and wait until clients can connect.

        Raises:
            PartFailed: it did not come up.
        """
        self._data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(self._data, USER, USER)
            for above in self._data.parents:
                if not above.stat().st_mode & 0o001:
                    above.chmod(above.stat().st_mode | 0o001)  # for it to get there; what lies beside stays closed
        await Program(
            "initdb",
            [
                *_as_its_user(),
                str(PROGRAMS / "initdb"),
                "-D",
                str(self._data),
                "-U",
                USER,
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-sync",
            ],
            environ={"PATH": os.defpath},
            log=self.log,
            ready=self._accepts,
        ).run()
        await super().start()

    async def _accepts(self, _pid: int) -> bool:
        asked = await asyncio.create_subprocess_exec(
            PROGRAMS / "pg_isready", "-q", "-h", HOST, "-p", str(self._port), "-U", USER
        )
        return await asked.wait() == 0


def _as_its_user() -> list[str]:
    """What comes before a command. A change of user drops the signal at the parent's death, unless told to keep it."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "--pdeathsig", "keep"]
