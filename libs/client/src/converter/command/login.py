"""The command that keeps a service's address and credentials."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

from msgspec import structs

from converter.command.accounts import AUDIENCE, DEFAULT_PROFILE, Account, account, complete, keep
from converter.command.codes import ExitCode
from converter.command.connection import client_of
from converter.command.output import PLAIN, Flag, Format
from converter.command.problems import Problem


def login(
    *,
    url: str = "",
    token_url: str = "",
    client_id: str = "",
    audience: str = AUDIENCE,
    profile: str = DEFAULT_PROFILE,
    env_file: Path | None = None,
    allow_http: Flag = False,
    output: Format = PLAIN,
) -> None:
    """Keep the address and the credentials of a service, once they have worked.

    The client's secret is asked for, or read from standard input where that is no terminal; it is never an argument,
    which other users of the machine could read.

    Args:
        url: The gateway's public address.
        token_url: Where its issuer gives tokens.
        client_id: Who asks; the secret is asked for, or read from standard input.
        audience: What tokens are for; kneron-converter unless given.
        profile: The name to keep it under; default unless given.
        env_file: Take all of it from a file of variables, such as .dev/stack.env.
        allow_http: Send secrets to another machine in the clear, where the network itself is trusted.
        output: How to say it.
    """
    if env_file is not None:
        known = structs.replace(account(None, env_file, os.environ), allow_http=allow_http)
    else:
        known = Account(url=url, token_url=token_url, client_id=client_id, audience=audience, allow_http=allow_http)
        if not (url and token_url and client_id):
            raise Problem("--url, --token-url and --client-id are needed, or --env-file", ExitCode.USAGE)
        known = complete(structs.replace(known, client_secret=_secret()), "standard input")
    with client_of(known) as client:
        next(client.jobs(known.client_id or "login"), None)
    file = keep(profile, known)
    found = {"profile": profile, "url": known.url, "client_id": known.client_id, "file": str(file)}
    output.give(found, [f"{known.url} knows {known.client_id or 'the token'}; kept as profile {profile} in {file}"])


def _secret() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("client secret: ")
    return sys.stdin.readline().strip()
