"""The command that looks whether a deployment works, part by part, and says what to do about what does not.

Addresses are the services' own variables, in the environment or in --env-file, where the names of .dev/stack.env work,
too. A part without an address is skipped, and the result says so.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
from msgspec import Struct, to_builtins

from converter.client import AsyncClient
from converter.client.errors import Misconfigured
from converter.command import parts
from converter.command.accounts import Account, account, variables_in
from converter.command.codes import ExitCode
from converter.command.connection import auth_of
from converter.command.output import PLAIN, Format, table
from converter.command.parts import Fact, Facts, NotGiven
from converter.command.problems import Problem

_WITHIN_S = 15.0
_ALIASES = {
    "JWKS_URL": "MEMBER_CENTER_JWKS_URL",
    "S3_ENDPOINT": "MINIO_ENDPOINT_URL",
    "S3_BUCKET": "MINIO_BUCKET",
    "S3_ACCESS_KEY": "MINIO_ACCESS_KEY",
    "S3_SECRET_KEY": "MINIO_SECRET_KEY",
    "FILE_STORE_URL": "FILE_ACCESS_AGENT_BASE_URL",
}
"""What `.dev/stack.env` calls the services' variables."""
_SERVERS: dict[str, tuple[Callable[[Mapping[str, str]], Facts], str]] = {
    "issuer's keys": (parts.issuer_keys, "Start the issuer, or correct MEMBER_CENTER_JWKS_URL."),
    "event bus": (parts.event_bus, "Start NATS, or correct NATS_URL and NATS_NKEY_SEED_FILE (the operator's)."),
    "object storage": (parts.object_storage, "Start it, make the bucket, or correct the MINIO_* variables."),
    "file store": (parts.file_store, "Start it, or correct FILE_ACCESS_AGENT_BASE_URL."),
}
"""By part, how it is looked at, and what to do when it does not even answer."""


class Finding(Struct, frozen=True, kw_only=True):
    """What is found of a part: `ok`, `failed` or `skipped`, in words, and what to do about it."""

    part: str
    status: str
    found: str
    do: str = ""


def doctor(*, env_file: Path | None = None, profile: str | None = None, output: Format = PLAIN) -> None:
    """Look whether a deployment works, part by part; exit code 1 when something does not.

    Args:
        env_file: A file of variables, such as .dev/stack.env, on top of the environment.
        profile: The gateway and the credentials that `converter login` has kept.
        output: How to say it.
    """
    # What the connections would log is told by the findings.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("CRITICAL"))
    given = dict(os.environ) | (variables_in(env_file) if env_file else {})
    variables = {service: given[name] for name, service in _ALIASES.items() if given.get(name)} | given
    try:
        known: Account | Problem = account(profile, env_file, os.environ)
    except Problem as absent:
        known = absent
    found = asyncio.run(_examined(variables, known))
    rows = [(each.status, each.part, each.found) for each in found]
    advice = [f"{each.part}: {each.do}" for each in found if each.do]
    output.give(to_builtins(found), [*table([("", "part", "found"), *rows]), *([""] if advice else []), *advice])
    if all(each.status == "skipped" for each in found):
        raise Problem("nothing was looked at: no address is given", ExitCode.USAGE, answered=True)
    if any(each.status == "failed" for each in found):
        raise Problem("something does not work", answered=True)


async def _examined(variables: Mapping[str, str], known: Account | Problem) -> list[Finding]:
    async with AsyncExitStack() as stack:
        found: list[Finding] = []
        if isinstance(known, Problem):
            found.append(Finding(part="gateway", status="skipped", found=str(known)))
        else:
            found += await _service(known, stack)
        servers = (_findings(name, look(variables), do) for name, (look, do) in _SERVERS.items())
        return [*found, *(finding for each in await asyncio.gather(*servers) for finding in each)]


async def _service(known: Account, stack: AsyncExitStack) -> list[Finding]:
    try:
        made = AsyncClient(known.url, auth_of(known), patience_s=0, timeout_s=_WITHIN_S, allow_http=known.allow_http)
    except Misconfigured as wrong:
        return [Finding(part="gateway", status="failed", found=str(wrong), do=wrong.hint or "Correct it.")]
    client = await stack.enter_async_context(made)
    return [
        *await _findings("gateway", parts.gateway(client), "Start the gateway, or correct its address."),
        *await _findings("token", parts.token(client, "doctor"), "Check the client's id, secret, scopes and audience."),
    ]


async def _findings(part: str, facts: Facts, do: str) -> list[Finding]:
    """A finding for each fact; the problem that ends them, whatever it is, is the last."""
    found: list[Finding] = []

    def note(fact: Fact) -> None:
        found.append(Finding(part=part, status="failed" if fact.do else "ok", found=fact.found, do=fact.do))

    try:
        async with asyncio.timeout(_WITHIN_S):
            async for fact in facts:
                note(fact)
    except NotGiven as absent:
        found.append(Finding(part=part, status="skipped", found=str(absent)))
    except TimeoutError:
        note(Fact(f"no answer within {_WITHIN_S:g} s", do))
    except Exception as problem:  # noqa: BLE001 - whatever is wrong with a part is what this command is for
        note(Fact(str(problem) or type(problem).__name__, do))
    return found
