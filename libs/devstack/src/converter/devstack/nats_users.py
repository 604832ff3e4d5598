"""A key for each user of the event bus, made once and kept."""

from __future__ import annotations

import os
from pathlib import Path

import nkeys

from converter.common.access import authorization, permissions
from converter.devstack.private import write_private


class NatsUsers:
    """The seeds of all users, in files of `directory` that only their owner may read."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.seed_files = {user: directory / f"{user}.seed" for user in permissions()}
        for file in self.seed_files.values():
            if not file.exists():
                write_private(file, nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))

    def seed(self, user: str) -> str:
        """What `user` proves itself with."""
        return self.seed_files[user].read_text()

    @property
    def authorization(self) -> str:
        """The server's configuration for them."""
        keys = {user: nkeys.from_seed(bytearray(file.read_bytes())) for user, file in self.seed_files.items()}
        return authorization({user: bytes(pair.public_key).decode() for user, pair in keys.items()})
