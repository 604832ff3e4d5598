from __future__ import annotations

import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from converter.common.storage import ArtifactStore, open_local, open_s3
from converter.devstack.seaweedfs import SeaweedFs


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SeaweedFs]:
    """One server for all tests of a worker; each test keeps to a prefix of its own."""
    directory = tmp_path_factory.mktemp("seaweedfs")
    server = SeaweedFs(directory, bucket="converter", access_key="test-key", secret_key="test-secret")
    await server.start()
    yield server
    await server.kill()
    shutil.rmtree(directory)


@pytest.fixture
async def s3(seaweedfs: SeaweedFs) -> AsyncIterator[ArtifactStore]:
    async with open_s3(seaweedfs.url, "converter", access_key="test-key", secret_key="test-secret") as store:
        yield store


@pytest.fixture(params=["s3", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """Every test with this fixture holds for both."""
    if request.param == "local":
        return open_local(tmp_path / "objects")
    s3: ArtifactStore = request.getfixturevalue("s3")
    return s3


@pytest.fixture
def prefix() -> str:
    return f"test/{uuid.uuid4()}/"
