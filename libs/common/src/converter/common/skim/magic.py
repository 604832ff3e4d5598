"""What a file is by its first bytes, for people who sent another than they meant to."""

from __future__ import annotations

HEAD_BYTES = 512

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (8, b"WEBP", "a WebP image"),
    (0, b"II*\x00", "a TIFF image"),
    (0, b"MM\x00*", "a TIFF image"),
    (0, b"PK\x03\x04", "a ZIP archive (a PyTorch checkpoint is one)"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x89HDF", "an HDF5 file (Keras)"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (4, b"ORTM", "a model in ONNX Runtime's own format; send the .onnx that it was made from"),
    (0, b"GGUF", "a GGUF model"),
    (8, b'{"', "a safetensors file"),
    (0, b"version https://git-lfs", "a Git LFS pointer: the model itself was not checked out"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
    (0, b"\x80\x02", "a Python pickle (as older PyTorch checkpoints are)"),
    (0, b"\x80\x03", "a Python pickle"),
    (0, b"\x80\x04", "a Python pickle"),
    (0, b"\x80\x05", "a Python pickle"),
)


def looks_like(head: bytes) -> str | None:
    """What a file that starts with `head` (its first `HEAD_BYTES`) is, as far as that can be told."""
    for offset, magic, name in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return name
    text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").rstrip("\ufffd")
    if not text or not all(character.isprintable() or character in "\t\r\n\f" for character in text):
        return None
    start = text.lstrip().lower()
    if start.startswith(("<!doctype html", "<html")):
        return "an HTML page"
    return "a JSON text" if start.startswith("{") else "plain text"
