"""Where the command finds the service and its credentials: a file of variables, a profile, or the environment.

The first of these that names a gateway is used alone, so that a secret of one never goes to the issuer of another:

    --env-file FILE     of `make up` (.dev/stack.env), or with the variables below
    --profile NAME      of the configuration file
    environment         CONVERTER_URL, CONVERTER_TOKEN_URL, CONVERTER_CLIENT_ID, CONVERTER_CLIENT_SECRET (or _FILE),
                        CONVERTER_AUDIENCE, CONVERTER_ALLOW_HTTP=true; or CONVERTER_TOKEN, a token from elsewhere
    profile `default`   of the configuration file
"""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from converter.command.codes import ExitCode
from converter.command.problems import Problem

DEFAULT_PROFILE = "default"
AUDIENCE = "kneron-converter"
_OTHERS = 0o077
_STACK_ENV = ("GATEWAY_URL", "TOKEN_URL", "CLIENT_ID", "CLIENT_SECRET", "AUDIENCE")
_PROFILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Account(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A gateway, and what proves who asks. The secrets are never shown."""

    url: str
    token_url: str = ""
    client_id: str = ""
    client_secret: str = ""
    audience: str = AUDIENCE
    token: str = ""
    allow_http: bool = False

    def __repr__(self) -> str:
        return f"Account(url={self.url!r}, client_id={self.client_id!r})"


class _File(Struct, frozen=True):
    profiles: dict[str, Account] = {}


def account(profile: str | None, env_file: Path | None, environ: Mapping[str, str]) -> Account:
    """The account that the command uses.

    Raises:
        Problem: there is none, or it is not complete.
    """
    if env_file is not None:
        found, place = from_variables(variables_in(env_file)), str(env_file)
    elif profile is not None:
        found, place = _profiles().get(profile), f"profile {profile}"
    else:
        found, place = from_variables(environ), "the environment"
        if found is None:
            found, place = _profiles().get(DEFAULT_PROFILE), f"profile {DEFAULT_PROFILE}"
    if found is None:
        if env_file is None and profile is None:
            why = "no service is named: `converter login` keeps one, or set CONVERTER_URL, or use --env-file"
        else:
            why = f"{place} names no gateway"
        raise Problem(why, ExitCode.USAGE)
    return complete(found, place)


def complete(found: Account, place: str) -> Account:
    """`found`, where it says all that is needed.

    Raises:
        Problem: it does not; `place` is where it was found.
    """
    needed = ("token_url", "client_id", "client_secret")
    missing = [] if found.token else [name for name in needed if not getattr(found, name)]
    if missing:
        raise Problem(f"{place} does not say {', '.join(missing)}", ExitCode.USAGE)
    return found


def from_variables(variables: Mapping[str, str]) -> Account | None:
    """What CONVERTER_* say, or else the names of `.dev/stack.env`; nothing without an address.

    Raises:
        Problem: a secret's file cannot be read.
    """
    if url := variables.get("CONVERTER_URL"):
        secret = variables.get("CONVERTER_CLIENT_SECRET", "")
        if not secret and (file := variables.get("CONVERTER_CLIENT_SECRET_FILE")):
            secret = _text(Path(file)).strip()
        return Account(
            url=url,
            token_url=variables.get("CONVERTER_TOKEN_URL", ""),
            client_id=variables.get("CONVERTER_CLIENT_ID", ""),
            client_secret=secret,
            audience=variables.get("CONVERTER_AUDIENCE") or AUDIENCE,
            token=variables.get("CONVERTER_TOKEN", ""),
            allow_http=variables.get("CONVERTER_ALLOW_HTTP") == "true",
        )
    url, token_url, client_id, secret, audience = (variables.get(name, "") for name in _STACK_ENV)
    if not (url and client_id):
        return None
    return Account(
        url=url, token_url=token_url, client_id=client_id, client_secret=secret, audience=audience or AUDIENCE
    )


def keep(name: str, known: Account) -> Path:
    """Write `known` as a profile of the configuration file, which nobody else can read.

    Returns:
        The file.

    Raises:
        Problem: `name` cannot be one, or the file there is not understood.
    """
    if not _PROFILE_NAME.fullmatch(name):
        raise Problem("a profile's name has letters, digits, _ and - only", ExitCode.USAGE)
    profiles, file = _profiles() | {name: known}, config_file()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with open(new, "x", encoding="utf-8", opener=_for_nobody_else) as opened:
            opened.write("\n".join(_toml(each, profiles[each]) for each in sorted(profiles)))
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)
    return file


def config_file() -> Path:
    """Where profiles are kept (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "converter" / "config.toml"


def unfinished_uploads() -> Path:
    """Where uploads are remembered that have not become a job (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "converter" / "uploads"


def _for_nobody_else(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _toml(name: str, known: Account) -> str:
    # A JSON string is a TOML basic string, but for DEL, which no address or secret holds.
    values = msgspec.to_builtins(known).items()
    return "".join(
        [f"[profiles.{name}]\n", *(f"{key} = {msgspec.json.encode(value).decode()}\n" for key, value in values)]
    )


def _profiles() -> dict[str, Account]:
    file = config_file()
    if not file.exists():
        return {}
    if file.stat().st_mode & _OTHERS:
        raise Problem(f"{file} can be read by others; it holds secrets: chmod 600 {file}", ExitCode.USAGE)
    try:
        return msgspec.convert(tomllib.loads(_text(file)), _File).profiles
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise Problem(f"{file} is not understood: {error}", ExitCode.USAGE) from None


def variables_in(file: Path) -> dict[str, str]:
    """The variables of a file of `NAME=value` lines, as a shell reads them.

    Raises:
        Problem: it cannot be read.
    """
    found: dict[str, str] = {}
    for line in _text(file).splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith("#"):
            try:
                found[name] = "".join(shlex.split(value))
            except ValueError as error:
                raise Problem(f"{file}: {name}: {error}", ExitCode.USAGE) from None
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise Problem(f"{file}: {why}", ExitCode.USAGE) from None
