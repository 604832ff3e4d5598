"""How an upload that is not a job's yet is remembered."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from converter.client.uploading import REMEMBERED_S, Unfinished

URL, FILE, DIGEST = "https://converter.example", Path("model.onnx"), "0" * 64


def test_what_was_begun_is_known_to_the_next_process_until_a_job_has_it(tmp_path: Path) -> None:
    with closing(Unfinished(tmp_path, URL, FILE, DIGEST)) as first:
        assert first.upload_id() is None
        first.remember("an-upload")
    with closing(Unfinished(tmp_path, URL, FILE, DIGEST)) as second:
        assert second.upload_id() == "an-upload"
        second.remember("another")
        assert second.upload_id() == "another"
        second.forget()
    assert not list(tmp_path.iterdir())


def test_whoever_sends_the_same_at_the_same_time_has_an_upload_of_its_own(tmp_path: Path) -> None:
    with closing(Unfinished(tmp_path, URL, FILE, DIGEST)) as first:
        first.remember("an-upload")
        with closing(Unfinished(tmp_path, URL, FILE, DIGEST)) as other:
            assert other.upload_id() is None
            other.remember("its-own")
            other.forget()
        assert first.upload_id() == "an-upload"
        assert list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("url", "file", "digest"),
    [("https://other.example", FILE, DIGEST), (URL, Path("other.onnx"), DIGEST), (URL, FILE, "1" * 64)],
)
def test_another_gateway_name_or_content_is_another_upload(tmp_path: Path, url: str, file: Path, digest: str) -> None:
    with closing(Unfinished(tmp_path, URL, FILE, DIGEST)) as begun:
        begun.remember("an-upload")
    with closing(Unfinished(tmp_path, url, file, digest)) as another:
        assert another.upload_id() is None


def test_what_is_long_past_is_forgotten(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.touch()
    os.utime(old, (old.stat().st_mtime - REMEMBERED_S - 60,) * 2)
    Unfinished(tmp_path, URL, FILE, DIGEST).close()
    assert not old.exists()


def test_without_a_directory_or_where_it_cannot_be_made_nothing_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (None, tmp_path / "file"):
        with closing(Unfinished(directory, URL, FILE, DIGEST)) as unfinished:
            unfinished.remember("an-upload")
            assert unfinished.upload_id() is None
            unfinished.forget()
