from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.gateway.intake.zip_walk import ArchiveTooLarge, BadArchive, ZipLimits, ZipWalk

LIMITS = ZipLimits(entries=50, file_bytes=8 << 20, all_bytes=16 << 20)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8


def walked(content: bytes, piece: int = 1 << 20, limits: ZipLimits = LIMITS) -> list[tuple[str, bytes, int]]:
    seen: list[tuple[str, bytes, int]] = []
    walk = ZipWalk(limits, lambda *file: seen.append(file))
    for start in range(0, len(content), piece):
        walk.feed(content[start : start + piece])
    walk.finish()
    assert walk.files == len(seen)
    return seen


class _Unseekable(io.RawIOBase):
    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.pieces.append(bytes(data))
        return len(data)


def archive(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, *, streamed: bool = False) -> bytes:
    target: io.RawIOBase | io.BytesIO = _Unseekable() if streamed else io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as made:  # type: ignore[arg-type]
        for name, content in files.items():
            made.writestr(name, content)
    return b"".join(target.pieces) if isinstance(target, _Unseekable) else target.getvalue()


def reason(content: bytes, limits: ZipLimits = LIMITS) -> str:
    with pytest.raises(BadArchive) as refused:
        walked(content, limits=limits)
    return str(refused.value)


@pytest.mark.parametrize("piece", [1, 3, 64, 1 << 20])
@pytest.mark.parametrize("streamed", [False, True])
def test_deflated_files_are_seen_as_they_are(piece: int, streamed: bool):  # noqa: FBT001 - a case
    files = {"a.png": PNG, "b/c.png": PNG * 3}
    seen = walked(archive(files, streamed=streamed), piece)
    assert [(name, size) for name, _, size in seen] == [(name, len(content)) for name, content in files.items()]
    assert all(files[name].startswith(head[:100]) for name, head, _ in seen)


@pytest.mark.parametrize("seekable", [True, False])
def test_files_whose_sizes_stand_in_a_zip64_field_pass(seekable: bool):  # noqa: FBT001 - a case
    target = io.BytesIO() if seekable else _Unseekable()
    made = zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED)  # type: ignore[arg-type]  # as above
    with made, made.open("a.npy", "w", force_zip64=True) as member:
        member.write(PNG)
    content = b"".join(target.pieces) if isinstance(target, _Unseekable) else target.getvalue()
    assert [size for _, _, size in walked(content, 5)] == [len(PNG)]


def test_stored_files_directories_hidden_files_and_comments_pass():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        made.mkdir("images")
        made.writestr("images/a.png", PNG)
        made.writestr("__MACOSX/images/._a.png", b"x")
        made.writestr("images/.DS_Store", b"x")
        made.comment = b"holiday"
    assert [name for name, _, _ in walked(content.getvalue(), 7)] == ["images/a.png"]


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "a/../../b.png", "a\\b.png", "C:/a.png", "a//b.png", "./a.png"])
def test_names_that_lead_elsewhere_are_refused(name: str):
    assert "leads elsewhere" in reason(
        archive({name: PNG}).replace(b"a/b.png", b"a\\b.png") if "\\" in name else archive({name: PNG})
    )


def test_a_link_is_refused():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        info = zipfile.ZipInfo("a.png")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        made.writestr(info, "/etc/passwd")
    assert "link" in reason(content.getvalue())


def test_an_encrypted_file_is_refused():
    content = bytearray(archive({"a.png": PNG}))
    content[6] |= 1
    assert "encrypted" in reason(bytes(content))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(method: int):
    assert "stored or deflated" in reason(archive({"a.png": PNG}, method))


def test_a_bomb_is_refused_after_a_piece_of_it():
    content = archive({"a.png": PNG, "b.png": bytes(7 << 20)})
    assert "grows more than" in reason(content)


def test_too_much_is_refused_in_a_file_and_in_all_files():
    with pytest.raises(ArchiveTooLarge) as refused:
        walked(archive({"a": PNG * 10}), limits=ZipLimits(entries=5, file_bytes=len(PNG), all_bytes=1 << 30))
    assert refused.value.limit_bytes == len(PNG)
    with pytest.raises(ArchiveTooLarge):
        walked(archive({"a": PNG, "b": PNG}, 0), limits=ZipLimits(entries=5, file_bytes=1 << 30, all_bytes=len(PNG)))


def test_too_many_entries_and_none_are_refused():
    many = archive({f"{number}.png": PNG for number in range(4)})
    assert "more than 3 entries" in reason(many, ZipLimits(entries=3, file_bytes=1 << 30, all_bytes=1 << 30))
    assert reason(archive({})) == "has no files"


def _directory_start(content: bytes) -> int:
    return int(struct.unpack("<I", content[-6:-2])[0])


@pytest.mark.parametrize(
    "forged",
    [
        lambda content: content[: _directory_start(content)] + content[-22:],
        lambda content: content[:-30],
        lambda content: content + b"x",
        lambda content: b"#!/bin/sh\n" + content,
        lambda content: content.replace(b"b.png", b"c.png", 1),
        lambda content: content[: _directory_start(content)] * 2 + content[_directory_start(content) :],
    ],
    ids=["nothing listed", "cut off", "more behind it", "more before it", "another name", "files twice"],
)
def test_an_archive_that_is_not_what_its_directory_says_is_refused(forged: Callable[[bytes], bytes]):
    reason(forged(archive({"a.png": PNG, "b.png": PNG * 2})))


def test_files_that_share_their_bytes_are_refused():
    """An overlap makes a bomb of any size of one file (https://www.bamsoftware.com/hacks/zipbomb/)."""
    content = archive({"a.png": PNG}, zipfile.ZIP_STORED)
    start = _directory_start(content)
    entry = content[start:-22]
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 2, 2, 2 * len(entry), start, 0)
    assert "twice" in reason(content[:start] + entry * 2 + end)


@given(st.binary(max_size=300), st.integers(1, 40))
def test_whatever_it_is_fed_it_says_no_in_its_own_words(content: bytes, piece: int):
    for prefix in (b"", b"PK\x03\x04", archive({"a.png": PNG})[:60]):
        with pytest.raises((BadArchive, ArchiveTooLarge)):
            walked(prefix + content, piece)


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_changed_byte_never_breaks_it(position: int, byte: int):
    content = bytearray(archive({"a.png": PNG[:40], "b.png": PNG[:20]}))
    content[position % len(content)] = byte
    try:
        walked(bytes(content))
    except (BadArchive, ArchiveTooLarge) as refused:
        assert str(refused)  # noqa: PT017 - to be taken is as good
