from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from converter.devstack.addresses import (
    CLIENT_ID,
    FILE_STORE,
    FILE_STORE_AUDIENCE,
    ISSUER,
    READ_SCOPE,
    UPLOAD_SCOPE,
    Addresses,
    credentials,
)
from converter.devstack.clients import write_clients
from converter.devstack.loopback import ReservedPorts, origin
from converter.devstack.process import Program
from converter.devstack.services import Programs


class Identity:
    """The development issuer, running, and who may ask it."""

    def __init__(self, directory: Path, addresses: Addresses, programs: Programs) -> None:
        self.directory, self.addresses, self.programs = directory, addresses, programs
        self.url = origin(addresses.ports[ISSUER])
        self.process: Program = programs.issuer(addresses.ports[ISSUER])
        self.clients = {client.client_id: client for client in addresses.clients}

    async def ask(self, http: httpx.AsyncClient, client_id: str = CLIENT_ID, **form: str) -> httpx.Response:
        """The answer to a token request of this client."""
        secret = self.clients[client_id].client_secret
        data = {"grant_type": "client_credentials"} | form
        return await http.post(f"{self.url}/token", data=data, auth=(client_id, secret))

    async def token(self, http: httpx.AsyncClient, client_id: str = CLIENT_ID, **form: str) -> str:
        answer = (await self.ask(http, client_id, **form)).raise_for_status().json()
        return str(answer["access_token"])


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def issuer(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Identity]:
    async def nobody(_: int) -> bool:
        return False

    directory = tmp_path_factory.mktemp("issuer")
    (directory / "logs").mkdir()
    with ReservedPorts() as ports:
        addresses = Addresses(credentials(directory), ports, replaced={}, default_ports=False)
        write_clients(directory / ISSUER, addresses.clients)
        identity = Identity(directory, addresses, Programs(directory, addresses, {}, nobody))
        await identity.process.start()
        yield identity
        await identity.process.stop()


class Store:
    """The development file store, running."""

    def __init__(self, issuer: Identity) -> None:
        port = issuer.addresses.ports[FILE_STORE]
        self.process, self.port = issuer.programs.file_store(port), port
        self.url = f"{origin(port)}/files"
        self.directory = issuer.directory / FILE_STORE

    def kept(self) -> dict[str, bytes]:
        """What lies on its disk, drafts included."""
        kept = {}
        for file in self.directory.rglob("*"):
            with suppress(IsADirectoryError, FileNotFoundError):  # gone while we looked
                kept[str(file.relative_to(self.directory))] = file.read_bytes()
        return kept


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running_store(issuer: Identity) -> AsyncIterator[Store]:
    store = Store(issuer)
    await store.process.start()
    yield store
    await store.process.stop()


@pytest.fixture
def store(running_store: Store) -> Store:
    """The store, empty."""
    files = running_store.directory / "files"
    shutil.rmtree(files)
    files.mkdir()
    return running_store


@pytest_asyncio.fixture(loop_scope="module")
async def upload_token(issuer: Identity, http: httpx.AsyncClient) -> str:
    return await issuer.token(http, "kneron-converter", scope=UPLOAD_SCOPE, audience=FILE_STORE_AUDIENCE)


@pytest_asyncio.fixture(loop_scope="module")
async def read_token(issuer: Identity, http: httpx.AsyncClient) -> str:
    return await issuer.token(http, scope=READ_SCOPE, audience=FILE_STORE_AUDIENCE)
