"""Whether bytes are an ONNX model or a supported image, told while they arrive.

ONNX has no magic number: a model is a protobuf message, so its top-level fields are walked. Tensors are skipped, not
read; nothing is kept but the first bytes, which say what a file is that is no model.

    NotOnnx    what was found instead, for the client
"""

from __future__ import annotations

from enum import Enum, auto

HEAD_BYTES = 512
IMAGE_HEAD_BYTES = 12
_VARINT_MAX_BYTES = 10
TOP_LEVEL_FIELDS_MAX = 20_000
"""Fields of one byte each would keep the walk busy for as long as the client likes."""
_VARINT, _LENGTH = 0, 2

_MODEL_FIELDS = {
    1: _VARINT,  # ir_version
    2: _LENGTH,  # producer_name
    3: _LENGTH,  # producer_version
    4: _LENGTH,  # domain
    5: _VARINT,  # model_version
    6: _LENGTH,  # doc_string
    7: _LENGTH,  # graph
    8: _LENGTH,  # opset_import
    14: _LENGTH,  # metadata_props
    20: _LENGTH,  # training_info
    25: _LENGTH,  # functions
    26: _LENGTH,  # configuration
}
"""The fields of ModelProto with their wire types (onnx.proto)."""
_IR_VERSION, _GRAPH = 1, 7

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
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
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras)"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (4, b"ORTM", "an ORT-format model; send the .onnx it was made from"),
    (0, b"GGUF", "a GGUF model"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
    (0, b"\x80\x02", "a Python pickle"),
    (0, b"\x80\x03", "a Python pickle"),
    (0, b"\x80\x04", "a Python pickle"),
    (0, b"\x80\x05", "a Python pickle"),
)


UNKNOWN = "is of an unknown kind"


class NotOnnx(Exception):
    """The bytes are no ONNX model; the message continues "the file …"."""


def image_kind(head: bytes) -> str | None:
    """PNG, JPEG, BMP or WebP by its first `IMAGE_HEAD_BYTES`, or none of them."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"BM"):
        return "BMP"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    return None


def looks_like(head: bytes) -> str:
    """What a file that starts with `head` is, as far as that can be told."""
    for offset, magic, name in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return f"looks like {name}"
    text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").rstrip("\ufffd")
    if text and all(character.isprintable() or character in "\t\r\n\f" for character in text):
        start = text.lstrip().lower()
        return "looks like an HTML page" if start.startswith(("<!doctype html", "<html")) else "looks like plain text"
    return UNKNOWN


class _Reading(Enum):
    TAG = auto()
    VALUE = auto()
    LENGTH = auto()
    SKIPPED = auto()


class OnnxRecogniser:
    """Walks a model's top level, fed with consecutive pieces of any size."""

    def __init__(self) -> None:
        self._head = b""
        self._reading = _Reading.TAG
        self._varint = self._varint_bytes = 0
        self._skip = 0
        self._fields = 0
        self._seen: set[int] = set()

    def feed(self, piece: bytes) -> None:
        """Look at the next bytes.

        Raises:
            NotOnnx: no ONNX model goes on like this.
        """
        if len(self._head) < HEAD_BYTES:
            self._head += piece[: HEAD_BYTES - len(self._head)]
        position = 0
        while position < len(piece):
            if self._reading is _Reading.SKIPPED:
                taken = min(self._skip, len(piece) - position)
                position += taken
                self._skip -= taken
                if not self._skip:
                    self._reading = _Reading.TAG
            else:
                self._take(piece[position])
                position += 1

    def finish(self) -> None:
        """The file has ended.

        Raises:
            NotOnnx: it is empty, cut off, or has no graph.
        """
        if not self._head:
            raise NotOnnx("is empty")
        whole = self._reading is _Reading.TAG and not self._varint_bytes
        if whole and {_IR_VERSION, _GRAPH} <= self._seen:
            return
        found = looks_like(self._head)
        if found == UNKNOWN and not whole:
            found = f"is cut off: {self._skip} bytes are missing" if self._skip else "is cut off"
        raise NotOnnx(found)

    def _take(self, byte: int) -> None:
        self._varint |= (byte & 0x7F) << (7 * self._varint_bytes)
        self._varint_bytes += 1
        if byte & 0x80:
            if self._varint_bytes == _VARINT_MAX_BYTES:
                self._refuse()
            return
        value, self._varint, self._varint_bytes = self._varint, 0, 0
        if self._reading is _Reading.TAG:
            self._begin_field(value >> 3, value & 7)
        elif self._reading is _Reading.LENGTH and value:
            self._skip, self._reading = value, _Reading.SKIPPED
        else:
            self._reading = _Reading.TAG

    def _begin_field(self, field: int, wire_type: int) -> None:
        repeated_graph = field == _GRAPH and _GRAPH in self._seen
        if _MODEL_FIELDS.get(field) != wire_type or repeated_graph:
            self._refuse()
        self._fields += 1
        if self._fields > TOP_LEVEL_FIELDS_MAX:
            raise NotOnnx(f"has more than {TOP_LEVEL_FIELDS_MAX} top-level fields")
        self._seen.add(field)
        self._reading = _Reading.VALUE if wire_type == _VARINT else _Reading.LENGTH

    def _refuse(self) -> None:
        raise NotOnnx(looks_like(self._head))
