"""The stack's Python programs: what to run, with which variables, and when it serves."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from converter.common.access import PROVISIONER
from converter.common.nats_users import NatsUsers
from converter.devstack.addresses import FILE_STORE, ISSUER, Addresses
from converter.devstack.loopback import HOST, http_status, origin
from converter.devstack.process import Program

_HTTP_OK = 200


class Service(NamedTuple):
    """One of the five: its name, the short one by which its workers are counted, and the module that is its program."""

    name: str
    short: str
    module: str


GATEWAY = Service("api-gateway", "gateway", "converter.gateway")
JOB_WORKERS = (
    Service("stage-onnx", "onnx", "converter.stage_onnx"),
    Service("stage-bie", "bie", "converter.stage_bie"),
    Service("stage-nef", "nef", "converter.stage_nef"),
    Service("promoter", "promoter", "converter.promoter"),
)
SERVICES = (GATEWAY, *JOB_WORKERS)


class Programs:
    """Makes the stack's programs.

    Args:
        directory: the stack's.
        addresses: where everything is.
        settings: more variables for all of them.
        at_work: whether the worker with this process id has reported for work.
        users: who each service is on the event bus; a server that is not ours knows no users of ours.
    """

    def __init__(
        self,
        directory: Path,
        addresses: Addresses,
        settings: Mapping[str, str],
        at_work: Callable[[int], Awaitable[bool]],
        users: NatsUsers | None = None,
    ) -> None:
        self._directory, self._addresses, self._at_work, self._users = directory, addresses, at_work, users
        # The directory tells a person who looks at a process which stack it belongs to.
        of_stack = {"DEVSTACK_DIRECTORY": str(directory), "PYTHONUNBUFFERED": "1"}
        variables = addresses.variables | of_stack | dict(settings)
        # A secret that comes from a file as well would be one too many.
        inherited = {name: value for name, value in os.environ.items() if name.removesuffix("_FILE") not in variables}
        self._environ = inherited | variables

    def provision(self) -> Program:
        """Creates the streams; ends by itself."""

        async def never(_: int) -> bool:
            return False

        variables = self._identity(PROVISIONER)
        return self._program("provision", "converter.common.provision", variables=variables, ready=never)

    def issuer(self, port: int) -> Program:
        """The development issuer on `port`."""
        arguments = ["--port", str(port), "--data", str(self._directory / ISSUER)]
        ready = _answers(f"{origin(port)}/jwks")
        return self._program(ISSUER, "converter.devstack.issuer", *arguments, ready=ready)

    def file_store(self, port: int) -> Program:
        """The development file store on `port`."""
        variables = self._addresses.variables
        arguments = {
            "--port": str(port),
            "--data": str(self._directory / FILE_STORE),
            "--issuer": variables["MEMBER_CENTER_ISSUER"],
            "--jwks-url": variables["MEMBER_CENTER_JWKS_URL"],
            "--audience": variables["FILE_ACCESS_AGENT_AUDIENCE"],
        }
        words = (word for pair in arguments.items() for word in pair)
        ready = _answers(f"{origin(port)}/health")
        return self._program(FILE_STORE, "converter.devstack.file_store", *words, ready=ready)

    def gateway(self, name: str, *, port: int, internal_port: int) -> Program:
        """A gateway with its two listeners."""
        listeners = {"HOST": HOST, "PORT": str(port), "INTERNAL_HOST": HOST, "INTERNAL_PORT": str(internal_port)}
        ready = _answers(f"{origin(port)}/health/ready")
        return self._program(name, GATEWAY.module, variables=listeners | self._identity(GATEWAY.name), ready=ready)

    def worker(self, name: str, service: Service) -> Program:
        """A stage's worker, or a promoter."""
        return self._program(name, service.module, variables=self._identity(service.name), ready=self._at_work)

    def _identity(self, user: str) -> dict[str, str]:
        return {"NATS_NKEY_SEED_FILE": str(self._users.seed_files[user])} if self._users else {}

    def _program(
        self,
        name: str,
        module: str,
        *arguments: str,
        ready: Callable[[int], Awaitable[bool]],
        variables: Mapping[str, str] | None = None,
    ) -> Program:
        return Program(
            name,
            [sys.executable, "-m", module, *arguments],
            environ=self._environ | dict(variables or {}),
            log=self._directory / "logs" / f"{name}.log",
            ready=ready,
        )


def _answers(url: str) -> Callable[[int], Awaitable[bool]]:
    async def ready(_: int) -> bool:
        return await http_status(url) == _HTTP_OK

    return ready
