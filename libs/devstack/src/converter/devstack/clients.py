"""The clients that the development issuer knows, in a file of its directory."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from converter.common.private import write_private

_FILE = "clients.json"


class Client(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may ask for tokens. `grants` holds, by audience, the scopes that a token for it may carry."""

    client_id: str
    client_secret: str
    grants: dict[str, tuple[str, ...]]
    tenant_id: str = ""


def write_clients(directory: Path, clients: tuple[Client, ...]) -> None:
    """Make `clients` the only ones that an issuer on `directory` knows."""
    write_private(directory / _FILE, msgspec.json.format(msgspec.json.encode(clients)))


def read_clients(directory: Path) -> dict[str, Client]:
    """By client id, the clients that an issuer on `directory` knows now."""
    clients = msgspec.json.decode((directory / _FILE).read_bytes(), type=tuple[Client, ...])
    return {client.client_id: client for client in clients}
