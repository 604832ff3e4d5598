from __future__ import annotations

from pathlib import Path

import pytest

from converter.devstack.addresses import VariablesMissing, credentials, outside


def test_a_replaced_server_needs_all_that_it_takes_to_use_it():
    assert outside({"NATS_URL": "nats://bus:4222", "PORT": "1", "MINIO_BUCKET": "b"}) == {"NATS_URL": "nats://bus:4222"}
    with pytest.raises(VariablesMissing) as failed:
        outside({"MINIO_ENDPOINT_URL": "http://s3", "MINIO_ACCESS_KEY": "a"})
    assert failed.value.missing == ["MINIO_BUCKET", "MINIO_SECRET_KEY"]


def test_secrets_are_made_once_and_for_the_owner_alone(tmp_path: Path):
    first = credentials(tmp_path)
    assert credentials(tmp_path) == first
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert len(set(first.__struct_fields__)) == len({getattr(first, name) for name in first.__struct_fields__})
