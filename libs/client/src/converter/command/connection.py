"""How a command reaches the service, and how it tells of the client's errors."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclopts import Parameter

from converter.client import Bearer, Client, ClientCredentials, patience
from converter.client.errors import (
    ConverterError,
    Forbidden,
    InsecureUrl,
    Misconfigured,
    NoToken,
    NotTheContract,
    RateLimited,
    Refused,
    Unauthenticated,
    Unavailable,
    Unreachable,
    UserHasActiveJob,
    WaitTimedOut,
)
from converter.command.accounts import Account, account
from converter.command.codes import ExitCode
from converter.command.output import say
from converter.command.problems import Told, told

_PATIENCE_S = 30.0


@Parameter(name="*")
@dataclass(frozen=True)
class Connection:
    """Which service is asked.

    Args:
        profile: One that `converter login` has kept.
        env_file: A file of variables, such as .dev/stack.env.
    """

    profile: str | None = None
    env_file: Path | None = None

    def client(self) -> Client:
        """A client of that service.

        Raises:
            Problem: no service is named, or it is not completely described.
            InsecureUrl: secrets would travel in the clear.
        """
        return client_of(account(self.profile, self.env_file, os.environ))


ANY = Connection()


def client_of(known: Account) -> Client:
    """A client of the account's gateway; what it waits for is said on standard error.

    Raises:
        InsecureUrl: secrets would travel in the clear.
    """
    _say_what_is_waited_for()
    return Client(known.url, auth_of(known), patience_s=_PATIENCE_S, allow_http=known.allow_http)


def _say_what_is_waited_for() -> None:
    """The client logs each failure that it waits out: say each one once, so that the command is not just silent."""
    log = logging.getLogger(patience.__name__)
    log.setLevel(logging.INFO)
    log.handlers = [_SayingOnce()]
    log.propagate = False


class _SayingOnce(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        sentence = record.getMessage()
        if sentence not in self._said:
            self._said.add(sentence)
            say(sentence)


def auth_of(known: Account) -> ClientCredentials | Bearer:
    """What `known` proves itself with."""
    if known.token:
        return Bearer(known.token)
    return ClientCredentials(
        token_url=known.token_url,
        client_id=known.client_id,
        client_secret=known.client_secret,
        audience=known.audience,
    )


@told.register
def _(problem: ConverterError) -> Told:
    lines = [str(problem)]
    facts: dict[str, Any] = {"code": problem.code, "message": problem.message, "hint": problem.hint}
    if isinstance(problem, Refused):
        lines += [f"  {name}: {message}" for name, message in problem.fields.items()]
        facts |= {"status": problem.status, "details": problem.details, "request_id": problem.request_id}
    if isinstance(problem, UserHasActiveJob):
        lines.append(f"  it is {problem.active_job_id}: converter watch {problem.active_job_id}")
    if isinstance(problem, InsecureUrl):
        lines.append("hint: use https, or set CONVERTER_ALLOW_HTTP=true where the network itself is trusted")
    elif problem.hint and not (isinstance(problem, Refused) and problem.fields):
        lines.append(f"hint: {problem.hint}")
    if isinstance(problem, Refused) and problem.request_id and isinstance(problem, Unavailable):
        lines.append(f"request id: {problem.request_id}")
    return Told(_code(problem), lines, facts)


def _code(problem: ConverterError) -> ExitCode:
    match problem:
        case Misconfigured():
            return ExitCode.USAGE
        case (
            Unreachable()
            | NoToken()
            | NotTheContract()
            | Unauthenticated()
            | Forbidden()
            | RateLimited()
            | Unavailable()
        ):
            return ExitCode.UNREACHABLE
        case Refused():
            return ExitCode.REFUSED
        case WaitTimedOut():
            return ExitCode.NOT_YET
        case _:
            return ExitCode.FAILED
