"""Writes flatbuffers, and NEF files in the layout that the vendor's published library reads."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

TARGETS = {"520": 0, "720": 1, "530": 2, "730": 3, "630": 4}
Field = int | str | bytes | Mapping | Sequence


class Writer:
    """Lays objects out one after the other; offsets are filled in once their targets are known."""

    def __init__(self) -> None:
        self.content = bytearray(4)

    def table(self, fields: Mapping[int, Field]) -> int:
        """Writes a table (field number to value) and all that it points to; returns where it is."""
        slots = max(fields, default=-1) + 1
        vtable = [0] * slots
        for index, number in enumerate(sorted(fields)):
            vtable[number] = 4 + 4 * index
        at_vtable = self._append(struct.pack(f"<{2 + slots}H", 4 + 2 * slots, 4 + 4 * len(fields), *vtable))
        at = self._append(struct.pack("<i", 0) + bytes(4 * len(fields)))
        struct.pack_into("<i", self.content, at, at - at_vtable)
        for index, number in enumerate(sorted(fields)):
            self._fill(at + 4 + 4 * index, fields[number])
        return at

    def _fill(self, place: int, value: Field) -> None:
        if isinstance(value, int):
            struct.pack_into("<I", self.content, place, value & 0xFFFF_FFFF)
        else:
            struct.pack_into("<I", self.content, place, self._write(value) - place)

    def _write(self, value: Field) -> int:
        if isinstance(value, Mapping):
            return self.table(value)
        if isinstance(value, str | bytes):
            content = value.encode() if isinstance(value, str) else value
            return self._append(struct.pack("<I", len(content)) + content + b"\0")
        at = self._append(struct.pack("<I", len(value)) + bytes(4 * len(value)))
        for index, entry in enumerate(value):
            self._fill(at + 4 + 4 * index, entry)
        return at

    def _append(self, content: bytes) -> int:
        self.content += bytes(-len(self.content) % 4)
        at = len(self.content)
        self.content += content
        return at

    def finish(self, root: int) -> bytes:
        struct.pack_into("<I", self.content, 0, root)
        return bytes(self.content)


def nef(
    *,
    platform: str = "720",
    model_id: int = 32768,
    version: int = 0xA1,
    models: bytes = b"commands and weights",
    schema: tuple[int, int, int] = (1, 0, 0),
    target: int | None = None,
    header: Mapping[int, Field] | None = None,
    models_crc: int | None = None,
    trailer: bytes = bytes(12),
) -> bytes:
    """A whole NEF; `header` replaces single fields of the header."""
    firmware = struct.pack("<I14I", 1, model_id, version, *range(12)) + trailer
    writer = Writer()
    fields = {
        0: f"kdp{platform}",
        1: TARGETS[platform] if target is None else target,
        2: zlib.crc32(models) if models_crc is None else models_crc,
        5: "standin compiler",
        6: "0.25.0",
        7: dict(enumerate(schema)),
        **(header or {}),
    }
    root = writer.table(
        {
            1: fields,
            2: [{0: "model", 1: model_id, 2: f"{version:04x}"}],
            3: {0: firmware if schema[0] < 2 else b"", 1: models},
        }
    )
    body = writer.finish(root)
    return body + struct.pack("<I", zlib.crc32(body))
