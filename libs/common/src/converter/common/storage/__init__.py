"""Where artifacts are kept: one store, over an S3 server or over a directory that the services of one machine share.

`store` holds what is the same for both, `port` the words, the errors and what a backend has to do, `s3` and `local`
the two backends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from converter.common.service import Unreachable
from converter.common.settings import StorageSettings
from converter.common.storage.local import LocalBackend
from converter.common.storage.port import (
    ArtifactCorrupt,
    BucketMissing,
    ByteRange,
    Download,
    InvalidKey,
    ObjectExists,
    ObjectInfo,
    ObjectNotFound,
    OpenUpload,
    RangeNotSatisfiable,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from converter.common.storage.s3 import S3Backend
from converter.common.storage.s3_transport import Timeouts, connect
from converter.common.storage.store import Apart, ArtifactStore, Writer

__all__ = [
    "Apart",
    "ArtifactCorrupt",
    "ArtifactStore",
    "BucketMissing",
    "ByteRange",
    "Download",
    "InvalidKey",
    "ObjectExists",
    "ObjectInfo",
    "ObjectNotFound",
    "OpenUpload",
    "RangeNotSatisfiable",
    "StorageError",
    "StorageFull",
    "StorageUnavailable",
    "Timeouts",
    "Writer",
    "must_work",
    "open_local",
    "open_s3",
    "open_store",
]


@asynccontextmanager
async def open_store(settings: StorageSettings) -> AsyncIterator[ArtifactStore]:
    """The store that `settings` name. Nothing is contacted before the first use; `ArtifactStore.probe` does."""
    if settings.storage_backend == "local":
        if settings.local_storage_dir is None:
            raise ValueError("local_storage_dir is required with storage_backend local")
        yield open_local(settings.local_storage_dir)
        return
    async with open_s3(
        settings.minio_endpoint_url,
        settings.minio_bucket,
        access_key=settings.minio_access_key.reveal(),
        secret_key=settings.minio_secret_key.reveal(),
    ) as store:
        yield store


async def must_work(store: ArtifactStore) -> None:
    """Write, read and delete once, at a service's start.

    Raises:
        Unreachable: the store cannot be used.
    """
    try:
        await store.probe()
    except StorageUnavailable as error:
        raise Unreachable("object storage", error.address, error.why) from error


@asynccontextmanager
async def open_s3(
    endpoint_url: str, bucket: str, *, access_key: str, secret_key: str, timeouts: Timeouts | None = None
) -> AsyncIterator[ArtifactStore]:
    """A store in `bucket` of the S3 server at `endpoint_url` (`http://host:port`); the context ends its connections."""
    async with connect(endpoint_url, bucket, access_key, secret_key, timeouts or Timeouts()) as transport:
        yield ArtifactStore(S3Backend(transport))


def open_local(directory: Path) -> ArtifactStore:
    """A store in `directory`, which is created."""
    directory.mkdir(parents=True, exist_ok=True)
    return ArtifactStore(LocalBackend(directory))
