"""Which image a file is, by its first bytes."""

from __future__ import annotations


def image_kind(head: bytes) -> str | None:
    """PNG, JPEG, BMP or WebP by its first 12 bytes, or none of them."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"BM"):
        return "BMP"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    return None
