"""The whole system on loopback: four servers and the services, each a process of its own, kept alive until the end.

    async with Stack(directory) as stack:
        requests.post(stack.env["GATEWAY_URL"] + "/api/v1/jobs", …)
        await stack.kill("stage-bie")                                   # stays down …
        await stack.start("stage-bie", env={"STAGE_CONCURRENCY": "2"})  # … until it is started again

A part that ends unasked is started again. Every process dies with the one that made the stack, even when that is
killed. What a run leaves in `directory` (data, secrets, `logs/`) the next run there goes on with.

    PartFailed          a part did not come up (process.py)
    VariablesMissing    a server is replaced, but not all that is needed to use it is set (addresses.py)
    AlreadyRunning      another stack runs in the directory
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Self

from converter.common.access import OPERATOR
from converter.common.bus import Bus, BusRefused, EventBusUnavailable
from converter.common.nats_users import NatsUsers
from converter.common.private import write_private
from converter.common.settings import NatsSettings
from converter.common.topology import SUBSCRIBER, WORKERS, bucket_key, bucket_stream
from converter.devstack import signing
from converter.devstack.addresses import FILE_STORE, ISSUER, NATS, S3, Addresses, credentials
from converter.devstack.clients import write_clients
from converter.devstack.loopback import ReservedPorts, origin
from converter.devstack.nats_server import NatsServer
from converter.devstack.process import Part, tail_of
from converter.devstack.seaweedfs import SeaweedFs
from converter.devstack.services import GATEWAY, JOB_WORKERS, Programs, Service
from converter.devstack.signing import ProvenanceKey
from converter.devstack.supervisor import Supervisor

GATEWAY_PORTS = (4000, 4001)


class AlreadyRunning(RuntimeError):
    """Another stack runs in `directory`."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"a stack already runs in {directory}")


class Stack:
    """The system in `directory`.

    Args:
        directory: takes data, secrets, logs and `stack.env`.
        workers: how many processes of a service, by its short name; one where nothing is said.
        settings: more variables for all services.
        replaced: variables of outside servers that take the place of ours (see `addresses.outside`).
        users: who each service is on an outside event bus; without them everybody may do everything there.
        default_ports: use the usual ports where they are free; else any.
        keep_data: end the servers gently. They take seconds for it; data that nobody will read is not worth them.
        tell: is given a sentence when a part ended unasked.
    """

    def __init__(
        self,
        directory: Path,
        *,
        workers: Mapping[str, int] | None = None,
        settings: Mapping[str, str] | None = None,
        replaced: Mapping[str, str] | None = None,
        users: NatsUsers | None = None,
        default_ports: bool = False,
        keep_data: bool = False,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.directory = directory.resolve()
        self._workers, self._settings = dict(workers or {}), dict(settings or {})
        self._replaced, self._default_ports, self._keep_data = dict(replaced or {}), default_ports, keep_data
        self._users = users
        self._supervisor = Supervisor(self._write_env, tell)
        self._ports = ReservedPorts()
        self._bus: Bus | None = None
        self._serving = False

    @property
    def env(self) -> dict[str, str]:
        """What `stack.env` says now."""
        return self._addresses.for_people(
            gateway_url=origin(self._gateway_ports[0][0]),
            internal_url=origin(self._gateway_ports[0][1]),
            subscriber_seed=self._users.seed(SUBSCRIBER) if self._users else "",
            public_key_file=self._provenance_key.public,
            pids=self.pids,
        )

    @property
    def pids(self) -> dict[str, int]:
        """The processes that run now, by name; several workers of a service are `name.1`, `name.2`."""
        return self._supervisor.pids

    @property
    def variables(self) -> dict[str, str]:
        """What every service finds in its environment, secrets included."""
        return self._addresses.variables | self._settings

    @property
    def server_ports(self) -> dict[str, int]:
        """Where our own servers listen, by name; known before the first service is started."""
        return self._addresses.ports

    @property
    def bus(self) -> Bus:
        """The stack's own connection to the event bus."""
        if self._bus is None:
            raise RuntimeError("the stack is not up")
        return self._bus

    @property
    def gateway_urls(self) -> list[str]:
        """The public API of each gateway."""
        return [origin(public) for public, _ in self._gateway_ports]

    def log_tail(self, name: str) -> str:
        """The last lines that the part `name` wrote."""
        return tail_of(self._supervisor.part(name).log)

    def stored_file(self, key: str) -> Path:
        """Where our own file store keeps what was put under `key`."""
        return self.directory / FILE_STORE / "files" / key

    async def __aenter__(self) -> Self:
        (self.directory / "logs").mkdir(parents=True, exist_ok=True)
        async with contextlib.AsyncExitStack() as closing:
            closing.enter_context(_only_one_in(self.directory))
            closing.enter_context(self._ports)
            closing.push_async_callback(self._down)
            await self._up()
            self._closing = closing.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._closing.aclose()

    async def kill(self, name: str) -> None:
        """SIGKILL the part `name` and leave it down."""
        await (await self._supervisor.let_go(name)).kill()

    async def stop(self, name: str) -> None:
        """End the part `name` as an operator would and leave it down."""
        await (await self._supervisor.let_go(name)).stop()

    async def start(self, name: str, env: Mapping[str, str] | None = None) -> None:
        """Start a part that `kill` or `stop` ended; a service with `env` on top, for this one process.

        Raises:
            PartFailed: it did not come up.
        """
        await self._supervisor.start_again(name, env or {})

    def send_signal(self, name: str, number: signal.Signals) -> None:
        """SIGSTOP freezes the part `name`, SIGCONT thaws it."""
        self._supervisor.part(name).send_signal(number)

    async def _up(self) -> None:
        (self.directory / "stack.env").unlink(missing_ok=True)  # of a stack that was killed
        self._addresses = Addresses(
            credentials(self.directory), self._ports, replaced=self._replaced, default_ports=self._default_ports
        )
        usual = GATEWAY_PORTS if self._default_ports else (0, 0)
        self._gateway_ports = [(self._ports.take(usual[0]), self._ports.take(usual[1])) for _ in self._names(GATEWAY)]
        write_clients(self.directory / ISSUER, self._addresses.clients)
        if NATS in self._addresses.own:
            self._users = NatsUsers(self.directory / "nats-users")
        self._provenance_key = ProvenanceKey(self.directory)
        settings = {signing.VARIABLE: str(self._provenance_key.private)} | self._settings
        programs = Programs(self.directory, self._addresses, settings, self._at_work, self._users)
        servers = self._servers(programs)
        bus_server = {NATS: servers.pop(NATS)} if NATS in servers else {}
        await _all_of(self._start_bus(programs, bus_server), self._start_parts(servers))
        await self._start_parts(self._services(programs))
        self._serving = True
        self._write_env()

    async def _down(self) -> None:
        self._serving = False
        (self.directory / "stack.env").unlink(missing_ok=True)
        gateways, workers = self._names(GATEWAY), [name for service in JOB_WORKERS for name in self._names(service)]
        await self._supervisor.stop(gateways)
        await self._supervisor.stop(workers)
        if self._bus:
            await self._bus.close()
        await self._supervisor.stop([FILE_STORE, ISSUER, S3], gently=self._keep_data)
        await self._supervisor.stop([NATS], gently=self._keep_data)

    def _servers(self, programs: Programs) -> dict[str, Part]:
        variables, ports = self._addresses.variables, self._addresses.ports
        makers: dict[str, Callable[[], Part]] = {
            NATS: lambda: NatsServer(
                self.directory / NATS, port=ports[NATS], more=self._users.accounts if self._users else ""
            ),
            S3: lambda: SeaweedFs(
                self.directory / S3,
                bucket=variables["MINIO_BUCKET"],
                access_key=variables["MINIO_ACCESS_KEY"],
                secret_key=variables["MINIO_SECRET_KEY"],
                port=ports[S3],
            ),
            ISSUER: lambda: programs.issuer(ports[ISSUER]),
            FILE_STORE: lambda: programs.file_store(ports[FILE_STORE]),
        }
        servers = {server: makers[server]() for server in self._addresses.own}
        for server, part in servers.items():
            link = self.directory / "logs" / f"{server}.log"
            if part.log != link:  # it keeps its log with its data; people look for all of them in one place
                link.unlink(missing_ok=True)
                link.symlink_to(os.path.relpath(part.log, link.parent))
        return servers

    def _services(self, programs: Programs) -> dict[str, Part]:
        gateways = zip(self._names(GATEWAY), self._gateway_ports, strict=True)
        workers = ((name, service) for service in JOB_WORKERS for name in self._names(service))
        return {
            **{name: programs.gateway(name, port=at[0], internal_port=at[1]) for name, at in gateways},
            **{name: programs.worker(name, service) for name, service in workers},
        }

    def _names(self, service: Service) -> list[str]:
        count = self._workers.get(service.short, 1)
        return [service.name] if count == 1 else [f"{service.name}.{number}" for number in range(1, count + 1)]

    async def _start_parts(self, parts: Mapping[str, Part]) -> None:
        await _all_of(*(self._supervisor.start(name, part) for name, part in parts.items()))

    async def _start_bus(self, programs: Programs, server: Mapping[str, Part]) -> None:
        await self._start_parts(server)
        await programs.provision().run()
        seed_file = self._users.seed_files[OPERATOR] if self._users else os.environ.get("NATS_NKEY_SEED_FILE")
        settings = NatsSettings(
            nats_url=self._addresses.variables["NATS_URL"], nats_nkey_seed_file=Path(seed_file) if seed_file else None
        )
        self._bus = await Bus.connect(settings, name=OPERATOR)

    async def _at_work(self, pid: int) -> bool:
        """Whether a worker with this process id shows in the bucket of workers, whose names end in pid and chance."""
        if self._bus is None:
            return False
        try:
            shown = await self._bus.subjects(bucket_stream(WORKERS), bucket_key(WORKERS, ">"))
        except (EventBusUnavailable, BusRefused):
            return False
        return any(f"-{pid}-" in subject for subject in shown)

    def _write_env(self) -> None:
        if not self._serving:  # who waits for the file may count on everything in it
            return
        lines = "".join(f"{name}={value}\n" for name, value in self.env.items())
        write_private(self.directory / "stack.env", lines.encode())


@contextlib.contextmanager
def _only_one_in(directory: Path) -> Iterator[None]:
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AlreadyRunning(directory) from None
        yield


async def _all_of(*parts: Coroutine[None, None, None]) -> None:
    """Do `parts` at once; the first that fails ends the others, and its exception is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
