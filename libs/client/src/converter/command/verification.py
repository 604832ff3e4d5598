"""The command that checks a file against its signed statement; it needs neither a service nor the toolchain."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from converter.command.output import PLAIN, Format, facts, table
from converter.command.problems import Problem
from converter.common.provenance import SUFFIX, KeyUnreadable, VerificationFailed, Verified, verify_artifact


def verify(
    file: Path,
    /,
    *,
    key: Path,
    statement: Path | None = None,
    output: Format = PLAIN,
) -> None:
    """Check an artifact against the signed statement beside it: who made it, of what, and how.

    Args:
        file: An artifact, as it was downloaded or promoted.
        key: The service's public key, a PEM file.
        statement: The statement; by default the file's name and .intoto.jsonl.
        output: How to say it.
    """
    try:
        verified = verify_artifact(file, statement or file.with_name(file.name + SUFFIX), key)
    except (VerificationFailed, KeyUnreadable) as wrong:
        raise Problem(str(wrong)) from wrong
    output.give(to_builtins(verified), _verification(verified))


def _verification(verified: Verified) -> Iterable[str]:
    yield "The signature is right, and this is the file that it is about."
    yield ""
    told = {name: getattr(verified, name) for name in verified.__struct_fields__}
    parameters, dependencies = told.pop("parameters"), told.pop("dependencies")
    yield from facts({**told, **parameters})
    yield ""
    yield from table([("made of and with", ""), *((str(each.get("name")), _identity(each)) for each in dependencies)])


def _identity(dependency: dict[str, Any]) -> str:
    """Digests, and an address where there is one."""
    digests = (f"{kind} {digest}" for kind, digest in (dependency.get("digest") or {}).items())
    return ", ".join([*digests, *([str(dependency["uri"])] if "uri" in dependency else [])])
