from __future__ import annotations

from pathlib import Path

from converter.common.settings import Secret, StorageSettings
from converter.common.storage import open_store
from converter.devstack.seaweedfs import SeaweedFs


async def test_settings_name_an_s3_server(seaweedfs: SeaweedFs) -> None:
    settings = StorageSettings(
        storage_backend="minio",
        minio_endpoint_url=seaweedfs.url,
        minio_bucket=seaweedfs.bucket,
        minio_access_key=Secret(seaweedfs.access_key),
        minio_secret_key=Secret(seaweedfs.secret_key),
    )
    async with open_store(settings) as store:
        assert await store.probe() > 0


async def test_settings_name_a_directory_that_two_services_share(tmp_path: Path) -> None:
    settings = StorageSettings(storage_backend="local", local_storage_dir=tmp_path / "new" / "objects")
    async with open_store(settings) as gateway, open_store(settings) as worker:
        stored = await gateway.put("jobs/1/input/model.onnx", b"model")
        await worker.fetch(stored, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == b"model"
