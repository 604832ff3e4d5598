"""Three nats-servers on loopback that keep three copies of everything, and what can go wrong between them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from faults import Proxy
from waiting import eventually

from converter.common.access import PROVISIONER
from converter.common.bus import Bus
from converter.common.nats_users import NatsUsers
from converter.common.service import Unreachable
from converter.common.settings import NatsSettings
from converter.devstack.loopback import HOST, free_ports
from converter.devstack.nats_server import NatsServer

NODES = ("n1", "n2", "n3")
FORMS_S = 60.0
CLUSTER = """
server_name: {name}
cluster {{
  name: converter
  listen: {host}:{port}
  # Others reach this node through a proxy of their own, and learn no other way.
  advertise: {host}:1
  routes: [{routes}]
}}
"""


class NatsCluster:
    """Three nodes; each link between two of them, in each direction, passes a proxy that can be broken.

    Args:
        directory: takes the data of each.
        users: who may do what.
    """

    def __init__(self, directory: Path, users: NatsUsers) -> None:
        self._directory, self._users = directory, users
        self._links: dict[tuple[str, str], Proxy] = {}
        self.nodes: dict[str, NatsServer] = {}

    @property
    def url(self) -> str:
        """Every node, for clients."""
        return ",".join(node.url for node in self.nodes.values())

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            route_ports = dict(zip(NODES, free_ports(len(NODES)), strict=True))
            for near in NODES:
                for far in NODES:
                    if near != far:
                        self._links[near, far] = await stack.enter_async_context(Proxy(route_ports[far]))
            for name in NODES:
                routes = [f"nats-route://{HOST}:{link.port}" for (near, _), link in self._links.items() if near == name]
                more = CLUSTER.format(name=name, host=HOST, port=route_ports[name], routes=", ".join(routes))
                self.nodes[name] = NatsServer(self._directory / name, more=more + self._users.accounts)
            stack.push_async_callback(self._end)
            await asyncio.gather(*(node.start() for node in self.nodes.values()))
            await eventually(self._formed, within_s=FORMS_S)
            self._closing = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._closing.aclose()

    async def leader(self, bus: Bus, stream: str) -> str:
        """The node that leads `stream` now."""
        return str((await bus.api(f"STREAM.INFO.{stream}"))["cluster"]["leader"])

    @asynccontextmanager
    async def killed(self, name: str) -> AsyncIterator[None]:
        """SIGKILL, and a start with the same data at the end."""
        await self.nodes[name].kill()
        try:
            yield
        finally:
            await self.nodes[name].start()

    @asynccontextmanager
    async def frozen(self, name: str) -> AsyncIterator[None]:
        """SIGSTOP, and SIGCONT at the end: it comes back believing what was true before."""
        self.nodes[name].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.nodes[name].send_signal(signal.SIGCONT)

    @asynccontextmanager
    async def apart(self, name: str) -> AsyncIterator[None]:
        """Nothing passes between this node and the others; clients still reach it."""
        links = [link for ends, link in self._links.items() if name in ends]
        for link in links:
            link.lose_answers = link.hold_requests = True
        try:
            yield
        finally:
            for link in links:
                link.lose_answers = link.hold_requests = False
                link.cut()

    async def _formed(self) -> bool:
        """Whether the nodes have found each other, and JetStream a leader."""
        seed_file = self._users.seed_files[PROVISIONER]
        try:
            bus = await Bus.connect(NatsSettings(nats_url=self.url, nats_nkey_seed_file=seed_file), name=PROVISIONER)
        except Unreachable:
            return False
        await bus.close()
        return True

    async def _end(self) -> None:
        for node in self.nodes.values():
            await node.kill()
