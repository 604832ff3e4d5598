"""A key for each user of the event bus, made once and kept, and the server's configuration for all of them.

    python -m converter.common.nats_users DIRECTORY [SUBSCRIBER …]

writes `<user>.seed` (for its owner alone: what the service gets as NATS_NKEY_SEED_FILE), `<user>.public` and
`accounts.conf`, which the server's configuration includes. A user whose `.public` is there already keeps it, so
a seed may be moved to where its service runs, or be made there in the first place; to replace a key take both away
and run this again.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

import nkeys

from converter.common.access import SERVICES, SUBSCRIBER_NAME, accounts, permissions
from converter.common.private import write_private
from converter.common.topology import SUBSCRIBER

CONFIGURATION = "accounts.conf"


class NatsUsers:
    """The keys of all services and of these `subscribers`, in files of `directory`; those that lack are made."""

    def __init__(self, directory: Path, subscribers: Sequence[str] = (SUBSCRIBER,)) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.seed_files = {user: directory / f"{user}.seed" for user in (*permissions(), *subscribers)}
        self._public_files = {user: file.with_suffix(".public") for user, file in self.seed_files.items()}
        self.made = [user for user, file in self._public_files.items() if not file.exists()]
        """Those whose keys are new."""
        for user in self.made:
            seed_file = self.seed_files[user]
            if not seed_file.exists():
                write_private(seed_file, nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
            public_key = nkeys.from_seed(bytearray(seed_file.read_bytes())).public_key
            self._public_files[user].write_bytes(public_key + b"\n")

    def seed(self, user: str) -> str:
        """What `user` proves itself with."""
        return self.seed_files[user].read_text()

    @property
    def public_keys(self) -> dict[str, str]:
        """What the server knows each user by."""
        return {user: file.read_text().strip() for user, file in self._public_files.items()}

    @property
    def accounts(self) -> str:
        """The server's configuration for them."""
        return accounts(self.public_keys)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m converter.common.nats_users", description="NATS users' keys")
    parser.add_argument("directory", type=Path, help="takes the keys and accounts.conf")
    parser.add_argument("subscribers", nargs="*", default=[SUBSCRIBER], help="who follows the events (%(default)s)")
    arguments = parser.parse_args()
    if taken := SERVICES.intersection(arguments.subscribers):
        parser.error(f"a service has this name: {', '.join(sorted(taken))}")
    if wrong := [name for name in arguments.subscribers if not re.fullmatch(SUBSCRIBER_NAME, name)]:
        parser.error(f"a subscriber's name has small letters, digits and hyphens only: {', '.join(wrong)}")
    users = NatsUsers(arguments.directory, arguments.subscribers)
    (arguments.directory / CONFIGURATION).write_text(users.accounts)
    for user, key in users.public_keys.items():
        print(f"{key}  {user}{' (new)' if user in users.made else ''}")  # noqa: T201 - the command's answer


if __name__ == "__main__":
    _main()
