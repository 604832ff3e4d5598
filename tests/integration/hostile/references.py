"""Reference sets that mean harm: single files that stand between two good images, and whole archives."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from converter.devstack.demo import DATA

GOOD = [path.read_bytes() for path in sorted((DATA / "digits_calibration").glob("*.png"))[:2]]


def picture(kind: str, mode: str = "RGB", size: tuple[int, int] = (16, 16), **options: object) -> bytes:
    written = io.BytesIO()
    Image.new(mode, size).save(written, kind, **options)
    return written.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, pixels: bytes, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *chunks, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    )


def npy(array: np.ndarray) -> bytes:
    written = io.BytesIO()
    np.save(written, array, allow_pickle=True)
    return written.getvalue()


def npy_header(shape: str, descr: str = "<f4") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def zipped(*files: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", method) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return written.getvalue()


def animated() -> bytes:
    written = io.BytesIO()
    frames = [Image.new("RGB", (16, 16), (shade, 0, 0)) for shade in range(0, 250, 10)]
    frames[0].save(written, "WEBP", save_all=True, append_images=frames[1:])
    return written.getvalue()


def claimed_bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 12, 0, 0, 54) + header + bytes(12)


FILES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "noise": lambda: np.random.default_rng(0).bytes(4096),
    "a JPEG cut off": lambda: picture("JPEG", size=(200, 200))[:300],
    "a PNG cut off": lambda: GOOD[0][:60],
    "a PNG of 900 million pixels": lambda: png(30_000, 30_000, zlib.compress(bytes(30_001 * 100))),
    "a PNG that claims 4 billion squared": lambda: png(2**31 - 1, 2**31 - 1, b""),
    "a PNG with a text of 100 MB": lambda: png(
        16, 16, zlib.compress(bytes(17 * 16)), chunk(b"zTXt", b"k\x00\x00" + zlib.compress(bytes(100 << 20)))
    ),
    "a BMP of minus a million": lambda: claimed_bmp(1_000_000, -1_000_000),
    "a GIF, which is no format of ours": lambda: picture("GIF", "P"),
    "a TIFF, which is no format of ours": lambda: picture("TIFF"),
    "a drawing that reads a file": lambda: (
        b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>'
    ),
    "an array of objects": lambda: npy(np.array([{"a": 1}], dtype=object)),
    "an array of a trillion": lambda: npy_header("(1099511627776,)"),
    "an array with a formula for a shape": lambda: npy_header("(__import__('os').getpid(),)"),
    "an array of negative size": lambda: npy_header("(-4, 4)"),
    "arrays that swell": lambda: zipped(
        ("x.npy", npy_header("(1, 1, 8, 8)") + bytes(80 << 20)), method=zipfile.ZIP_DEFLATED
    ),
    "an archive in the archive": lambda: zipped(("inner.zip", zipped(("a.png", GOOD[0])))),
}

USABLE: dict[str, Callable[[], bytes]] = {
    "an animation": animated,
    "16 bits for each pixel": lambda: picture("PNG", "I;16"),
    "a palette with transparency": lambda: picture("PNG", "P", transparency=0),
    "a picture with an archive behind": lambda: GOOD[0] + zipped(("a", b"b")),
    "a picture that says it is turned": lambda: picture("JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff"),
}
"""Odd, but images."""


def good_archive(*more: tuple[str, bytes]) -> bytes:
    return zipped(("0.png", GOOD[0]), *more, ("1.png", GOOD[1]))


def encrypted() -> bytes:
    """Both the local headers and the directory say that the members are encrypted."""
    content = bytearray(good_archive())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(magic)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(magic, at + 4)
    return bytes(content)


def lying() -> bytes:
    """The directory says that the members have four bytes."""
    content = bytearray(zipped(("0.png", bytes(1 << 20)), method=zipfile.ZIP_DEFLATED))
    at = content.find(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 4)
    return bytes(content)


def linked() -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        link = zipfile.ZipInfo("link.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("0.png", GOOD[0])
    return written.getvalue()


BROKEN_ARCHIVES: dict[str, Callable[[], bytes]] = {
    "no archive": lambda: b"not an archive" * 100,
    "an archive cut off": lambda: good_archive()[:-30],
    "an empty archive": zipped,
    "20000 files": lambda: zipped(*((f"{i}.png", b"") for i in range(20_000))),
    "every file encrypted": encrypted,
    "sizes that lie": lying,
    "files that swell to 200 MB": lambda: zipped(("0.png", bytes(200 << 20)), method=zipfile.ZIP_DEFLATED),
}
ODD_ARCHIVES: dict[str, Callable[[], bytes]] = {
    "names that climb out": lambda: good_archive(("../../../../tmp/evil.png", GOOD[0]), ("/etc/evil.png", GOOD[1])),
    "names with a NUL, a page and a bell": lambda: good_archive(("<b>\x1b[2J\x07\u202e.png", b"x")),
    "a link": linked,
    "one name twice": lambda: good_archive(("00.png", b"x"), ("000.png", b"y")),
    "bytes before and behind": lambda: b"MZ" + good_archive() + b"tail",
}
"""Those of which at least one file is a good image."""
