"""A real restate-server on loopback, from the npm package that ships it."""

from __future__ import annotations

import os
from http import HTTPStatus
from pathlib import Path

from peer_environment import installed
from pipeline import Durability

from converter.devstack.loopback import HOST, free_ports, http_status, origin
from converter.devstack.process import Program

PROGRAM = "node_modules/@restatedev/restate-server-linux-x64/bin/restate-server"
PARTITIONS = str(os.cpu_count())
"""Its 24 are for a cluster to share out; here each further one takes CPU and flushes of its own."""
WITHOUT_FSYNC = {Durability.KILL: "true", Durability.POWER: "false"}


class RestateServer(Program):
    """One node with every role and its data in `directory`; `url` is the ingress, with `admin` in its query."""

    def __init__(self, directory: Path, durability: Durability) -> None:
        ingress, admin, node = free_ports(3)
        self._serving = (f"{origin(ingress)}/restate/health", f"{origin(admin)}/health")
        self.url = f"{origin(ingress)}?admin={origin(admin)}"
        super().__init__(
            "restate-server",
            [str(installed("restate") / PROGRAM), "--base-dir", str(directory / "data"), "--no-logo"],
            environ={
                "PATH": os.defpath,
                "RESTATE_ADMIN__BIND_PORT": str(admin),
                "RESTATE_ADVERTISED_HOST": HOST,
                "RESTATE_BIND_IP": HOST,
                "RESTATE_BIND_PORT": str(node),
                "RESTATE_DEFAULT_NUM_PARTITIONS": PARTITIONS,
                "RESTATE_DISABLE_TELEMETRY": "true",
                "RESTATE_INGRESS__BIND_PORT": str(ingress),
                "RESTATE_LISTEN_MODE": "tcp",
                "RESTATE_LOG_SERVER__ROCKSDB_DISABLE_WAL_FSYNC": WITHOUT_FSYNC[durability],
                "RESTATE_NODE_NAME": "bench",
            },
            log=directory / "restate-server.log",
            ready=self._answers,
        )

    async def _answers(self, _pid: int) -> bool:
        return all([await http_status(url) == HTTPStatus.OK for url in self._serving])
