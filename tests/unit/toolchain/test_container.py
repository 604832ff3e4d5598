from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converter.toolchain import container
from converter.toolchain.container import Corrupt

MEDIA_TYPE = "application/vnd.test+zip"
MEMBERS = {"model.onnx": b"\x08\x08model", "golden/input/0.npy": bytes(range(256)), "empty": b""}
ABOUT = {"notice": "für Tests", "inputs": [{"name": "x", "shape": [1, 3]}]}

names = st.text(st.characters(codec="utf-8", exclude_characters="\0\\/"), min_size=1, max_size=20).filter(
    lambda name: name not in {container.MIMETYPE, container.MANIFEST}
)
# A test writes the same file anew for every example.
same_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "artifact"
    container.write(path, MEDIA_TYPE, ABOUT, MEMBERS)
    return path


def rebuilt(path: Path, entries: dict[str, bytes]) -> None:
    """A ZIP archive that no writer of ours would make."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def entries_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@same_file
@given(st.dictionaries(names, st.binary(max_size=200), max_size=8))
def test_what_was_written_is_read_and_equal_content_gives_equal_bytes(tmp_path: Path, members: dict[str, bytes]):
    first, second = tmp_path / "first", tmp_path / "second"
    container.write(first, MEDIA_TYPE, ABOUT, members)
    container.write(second, MEDIA_TYPE, dict(reversed(ABOUT.items())), dict(reversed(members.items())))
    read = container.read(first, MEDIA_TYPE)
    assert (read.about, read.members, read.media_type) == (ABOUT, members, MEDIA_TYPE)
    assert first.read_bytes() == second.read_bytes()


def test_the_media_type_stands_at_byte_38(file: Path):
    assert file.read_bytes()[38:].startswith(MEDIA_TYPE.encode())


def test_any_zip_reader_opens_it(file: Path):
    assert entries_of(file).items() >= MEMBERS.items()
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None


def test_another_media_type_is_refused(file: Path):
    with pytest.raises(Corrupt, match="not of the type application/other"):
        container.read(file, "application/other")


@same_file
@given(data=st.data())
def test_no_changed_byte_goes_unnoticed_in_a_member_and_none_raises_anything_else(file: Path, data: st.DataObject):
    content = bytearray(file.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    changed = file.with_name("changed")
    changed.write_bytes(content)
    try:
        read = container.read(changed, MEDIA_TYPE)
    except Corrupt:
        return
    # A timestamp or a file mode in the directory means nothing; what is read is what was written.
    assert (read.about, read.members) == (ABOUT, MEMBERS)


@same_file
@given(data=st.data())
def test_a_file_that_is_cut_off_is_refused(file: Path, data: st.DataObject):
    content = file.read_bytes()
    changed = file.with_name("changed")
    changed.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(Corrupt):
        container.read(changed, MEDIA_TYPE)


@same_file
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "anything"
    path.write_bytes(content)
    with pytest.raises(Corrupt):
        container.read(path, MEDIA_TYPE)


@pytest.mark.parametrize("extra", [b"x", b"\0" * 64])
def test_bytes_after_the_archive_are_refused(file: Path, extra: bytes):
    file.write_bytes(file.read_bytes() + extra)
    with pytest.raises(Corrupt):
        container.read(file, MEDIA_TYPE)


def test_a_member_that_the_manifest_does_not_list_is_refused(file: Path):
    rebuilt(file, entries_of(file) | {"smuggled": b"x"})
    with pytest.raises(Corrupt, match="not those in the manifest"):
        container.read(file, MEDIA_TYPE)


def test_a_compressed_member_is_refused(file: Path):
    entries = entries_of(file)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content, zipfile.ZIP_DEFLATED if name == "model.onnx" else zipfile.ZIP_STORED)
    with pytest.raises(Corrupt, match="compressed"):
        container.read(file, MEDIA_TYPE)


@pytest.mark.parametrize(
    "manifest",
    [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"members": {"a": 1}, "about": {}, "format": 1}'],
    ids=["empty", "list", "no keys", "no text", "deep", "wrong seal"],
)
def test_a_manifest_that_makes_no_sense_is_refused(file: Path, manifest: bytes):
    rebuilt(file, entries_of(file) | {"manifest.json": manifest})
    with pytest.raises(Corrupt):
        container.read(file, MEDIA_TYPE)


def test_a_format_of_the_future_is_refused(file: Path):
    entries = entries_of(file)
    manifest = json.loads(entries["manifest.json"]) | {"format": 2}
    rebuilt(file, entries | {"manifest.json": json.dumps(manifest).encode()})
    with pytest.raises(Corrupt, match="format 1"):
        container.read(file, MEDIA_TYPE)


def test_a_missing_member_is_told(file: Path):
    with pytest.raises(Corrupt, match="no member 'other'"):
        container.read(file, MEDIA_TYPE).member("other")


def test_a_missing_file_is_not_called_corrupt(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        container.read(tmp_path / "none", MEDIA_TYPE)
