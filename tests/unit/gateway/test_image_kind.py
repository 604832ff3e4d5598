from __future__ import annotations

import pytest

from converter.gateway.intake.image_kind import image_kind


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d", "PNG"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01", "JPEG"),
        (b"BM\x36\x00\x00\x00\x00\x00\x00\x00\x36\x00", "BMP"),
        (b"RIFF\x24\x00\x00\x00WEBP", "WebP"),
        (b"RIFF\x24\x00\x00\x00WAVE", None),
        (b"GIF89a\x01\x00\x01\x00\x00\x00", None),
        (b"PK\x03\x04", None),
        (b"", None),
    ],
)
def test_images_are_told_by_their_magic_numbers(head: bytes, kind: str | None):
    assert image_kind(head) == kind
