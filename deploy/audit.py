"""Asks OSV which pinned dependencies have known weaknesses. Part of `make check`.

It asks for every pin of every lock, a thousand in one request, and ends with 1 when one has a weakness that `ACCEPTED`
does not name. Where the service does not answer, it says NOT AUDITED and ends with 0, so that `make check` can be run
offline; with AUDIT=required it ends with 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
from msgspec import Struct

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "deploy/requirements.lock", "tests/node/package-lock.json", "benchmarks/peers/*/*lock*")
SERVICE = "https://api.osv.dev/v1/querybatch"
"""https://google.github.io/osv.dev/post-v1-querybatch; AUDIT_URL names another that answers alike."""
AT_ONCE = 1000
TIMEOUT_S = 20.0
ACCEPTED: dict[str, str] = {}
"""Weaknesses that do not reach us, by their id, and why not."""


class Pin(NamedTuple):
    """One version of a package that a lock names."""

    ecosystem: str
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.ecosystem})"


class NotAudited(Exception):
    """The service did not answer, or not in its own form."""


class _Weakness(Struct):
    id: str


class _Result(Struct):
    vulns: tuple[_Weakness, ...] = ()


class _Answer(Struct):
    results: tuple[_Result, ...]


def pins(root: Path) -> set[Pin]:
    """Every pin of the locks below `root`."""
    found = (path for pattern in LOCKS for path in root.glob(pattern))
    return {pin for path in found for pin in (_of_npm if path.suffix == ".json" else _of_pip)(path.read_text())}


def _of_pip(lock: str) -> Iterator[Pin]:
    for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock, re.MULTILINE):
        yield Pin("PyPI", name, version)


def _of_npm(lock: str) -> Iterator[Pin]:
    for path, package in json.loads(lock)["packages"].items():
        if path:  # the empty one is ourselves
            yield Pin("npm", package.get("name") or path.rpartition("node_modules/")[2], package["version"])


def weaknesses(asked: Iterable[Pin], service: str) -> dict[Pin, list[str]]:
    """What `service` knows of those that have any.

    Raises:
        NotAudited: it does not answer, or not as it should.
    """
    known: dict[Pin, list[str]] = {}
    with httpx.Client(timeout=TIMEOUT_S) as http:
        ordered = sorted(asked)
        for first in range(0, len(ordered), AT_ONCE):
            some = ordered[first : first + AT_ONCE]
            queries = [{"package": {"ecosystem": e, "name": name}, "version": version} for e, name, version in some]
            try:
                answer = http.post(service, json={"queries": queries}).raise_for_status()
                results = msgspec.json.decode(answer.content, type=_Answer).results
                known |= {pin: [each.id for each in result.vulns] for pin, result in zip(some, results, strict=True)}
            except (httpx.HTTPError, msgspec.MsgspecError, ValueError) as error:
                raise NotAudited(f"{service}: {error or type(error).__name__}") from error
    return {pin: ids for pin, ids in known.items() if ids}


def main() -> int:
    """Ask, and say what there is; the exit code."""
    asked = pins(ROOT)
    try:
        found = weaknesses(asked, os.environ.get("AUDIT_URL") or SERVICE)
    except NotAudited as why:
        sys.stderr.write(f"NOT AUDITED: nothing is known of {len(asked)} dependencies. {why}\n")
        return int(os.environ.get("AUDIT") == "required")
    new = {pin: [name for name in ids if name not in ACCEPTED] for pin, ids in found.items()}
    for pin, names in new.items():
        for name in names:
            sys.stderr.write(f"{pin}: https://osv.dev/{name}\n")
    sys.stdout.write(f"{len(asked)} dependencies audited; with known weaknesses: {sum(map(bool, new.values()))}\n")
    return int(any(new.values()))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    sys.exit(main())
