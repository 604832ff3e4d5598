"""Reads a NEF: what the compiler made, in its own words. Needs no library of the vendor's.

The layout is the one that the vendor's published C library reads: a flatbuffer, then its CRC-32 in four bytes, little
end first.

    NEFContent {0 magic:u32, 1 header, 2 model_info:[ModelInfo], 3 model_bin}
    NEFHeader  {0 platform:str, 1 target:i32, 2 crc:u32, 3 kn_number, 4 encryption_mode:i32, 5 compiler_version:str,
                6 toolchain_version:str, 7 schema_version, 8 uuid, 9 solution_id, 10 solution_tag}
    SchemaVersion {0 major, 1 minor, 2 revision}   ModelInfo {0 name:str, 1 id:i32, 2 version:str}
    ModelBin   {0 fw_info:[u8], 1 all_models:[u8]}

    NefInvalid    the file is no NEF, is damaged, or is not the one that was asked for
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Any

from msgspec import Struct

from converter.kneron.flatbuffer import Damaged, Table, root
from converter.kneron.release import UNKNOWN

MAGIC = 19_840_308
_MOST_MODELS = 256
_MOST_TEXT_BYTES = 4096
_CHECKSUM_BYTES = 4
_CHIPS = ("520", "720", "530", "730", "630", "540")
"""By `target`, as it was counted from 0; schema 2.2.1 and later count from 1."""
_COUNTED_FROM_ONE_SINCE = (2, 2, 1)
_FIRMWARE_SCHEMAS = (0, 1)
"""Major versions whose `fw_info` is a table of models; in others its place is another flatbuffer."""
_ENCRYPTION = {0: "none", 1: "with a key of the customer's", 2: "for one chip's KN number"}
_MODEL_WORDS = 14
_FIRMWARE_VERSION_WORD = 1


class NefInvalid(ValueError):
    """The file cannot be what a conversion is to give; the message says why."""


class NefModel(Struct, frozen=True, kw_only=True):
    """One model in a NEF; `version` as the file writes it."""

    name: str
    id: int
    version: str


class FirmwareModel(Struct, frozen=True, kw_only=True):
    """One model as the firmware finds it."""

    id: int
    version: int


class Nef(Struct, frozen=True, kw_only=True):
    """What a NEF says of itself. `chips` is what `target` can mean: it was counted in two ways."""

    platform: str
    target: int
    chips: tuple[str, ...]
    schema: tuple[int, int, int]
    encryption_mode: int
    compiler_version: str
    toolchain_version: str
    models: tuple[NefModel, ...]
    firmware: tuple[FirmwareModel, ...]
    models_bytes: int


def read(content: bytes) -> Nef:
    """What the NEF `content` says of itself, both of its checksums verified.

    Raises:
        NefInvalid: it is none, or damaged.
    """
    try:
        return _read(content)
    except Damaged as damage:
        raise NefInvalid(f"it is no NEF, or damaged: {damage}") from damage


def _read(content: bytes) -> Nef:
    if not looks_like(content):
        raise NefInvalid("it is no NEF, or damaged: its last four bytes are not the CRC-32 of the others")
    nef = root(content[:-_CHECKSUM_BYTES])
    magic, header, binary = nef.u32(0) or MAGIC, nef.table(1), nef.table(3)
    if magic != MAGIC:
        raise NefInvalid(f"its magic number is {magic}, not {MAGIC}")
    if header is None or binary is None:
        raise NefInvalid("it has no header or no models")
    all_models = binary.data(1)
    if zlib.crc32(all_models) != header.u32(2):
        raise NefInvalid("the CRC-32 in its header is not that of its models")
    schema, target = _schema(header.table(7)), header.i32(1)
    return Nef(
        platform=header.text(0, _MOST_TEXT_BYTES),
        target=target,
        chips=_chips(target, schema),
        schema=schema,
        encryption_mode=header.i32(4),
        compiler_version=header.text(5, _MOST_TEXT_BYTES),
        toolchain_version=header.text(6, _MOST_TEXT_BYTES),
        models=tuple(map(_model, nef.tables(2, _MOST_MODELS))),
        firmware=_firmware(binary.data(0)) if schema[0] in _FIRMWARE_SCHEMAS and not header.i32(4) else (),
        models_bytes=len(all_models),
    )


def _schema(version: Table | None) -> tuple[int, int, int]:
    return (version.u32(0), version.u32(1), version.u32(2)) if version else (0, 0, 0)


def _chips(target: int, schema: tuple[int, int, int]) -> tuple[str, ...]:
    shifts = (0, 1) if schema >= _COUNTED_FROM_ONE_SINCE else (0,)
    return tuple(_CHIPS[target - shift] for shift in shifts if 0 <= target - shift < len(_CHIPS))


def _model(table: Table) -> NefModel:
    return NefModel(name=table.text(0, _MOST_TEXT_BYTES), id=table.i32(1), version=table.text(2, _MOST_TEXT_BYTES))


def _firmware(content: bytes) -> tuple[FirmwareModel, ...]:
    """The count, then 14 words a model, the first two its id and version; what follows is the firmware's own."""
    if not content:
        return ()
    entry = struct.Struct(f"<{_MODEL_WORDS}I")
    count = int.from_bytes(content[:4], "little")
    if count > _MOST_MODELS or 4 + count * entry.size > len(content):
        raise Damaged(f"its firmware table has {len(content)} bytes, which is not enough for {count} models")
    entries = (entry.unpack_from(content, 4 + index * entry.size) for index in range(count))
    return tuple(FirmwareModel(id=words[0], version=words[_FIRMWARE_VERSION_WORD]) for words in entries)


def check(nef: Nef, *, platform: str, model_id: int, version: str) -> None:
    """Whether `nef` is for this chip and has this one model in this version (hex digits), everywhere that it says so.

    Raises:
        NefInvalid: it is another.
    """
    named = set(re.findall(r"[0-9]{3}", nef.platform)) & set(_CHIPS)
    if platform not in nef.chips or (named and platform not in named):
        chips = " or ".join(nef.chips) or f"unknown target {nef.target}"
        raise NefInvalid(f"it is for chip {chips} (platform {nef.platform!r}), asked for was {platform}")
    found = {
        **({"model list": [model.id for model in nef.models]} if nef.models else {}),
        **({"firmware table": [model.id for model in nef.firmware]} if nef.firmware else {}),
    }
    if not found:
        raise NefInvalid("it names no model")
    for where, ids in found.items():
        if ids != [model_id]:
            raise NefInvalid(f"its {where} has the ids {ids}, asked for was {model_id}")
    wanted = int(version, 16)
    if any(model.version != wanted for model in nef.firmware):
        raise NefInvalid(f"its firmware table has the version {nef.firmware[0].version:04x}, asked for was {version}")
    for model in nef.models:
        if model.version and wanted not in _numbers(model.version):
            raise NefInvalid(f"its model list has the version {model.version!r}, asked for was {version}")


def _numbers(text: str) -> set[int]:
    """What `text` can mean: versions are four hex digits, but a writer may have printed the number."""
    readable = [
        base for base, digits in ((16, r"(0x)?[0-9a-fA-F]{1,8}"), (10, r"[0-9]{1,10}")) if re.fullmatch(digits, text)
    ]
    return {int(text, base) for base in readable}


def looks_like(content: bytes) -> bool:
    """Whether `content` ends in the CRC-32 of all before it, which hardly any other file does."""
    body, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
    return len(checksum) == _CHECKSUM_BYTES and zlib.crc32(body) == int.from_bytes(checksum, "little")


def describe(content: bytes) -> dict[str, Any]:
    """What the NEF `content` is and holds, as `converter inspect` tells it; JSON.

    Raises:
        NefInvalid: it is none, or damaged.
    """
    nef = read(content)
    return {
        "kind": "NEF",
        "size_bytes": len(content),
        **record(nef),
        "encryption": _ENCRYPTION.get(nef.encryption_mode, f"unknown mode {nef.encryption_mode}"),
        "firmware_table": [{"id": model.id, "version": f"{model.version:04x}"} for model in nef.firmware],
        "checksums": "both as they should be",
    }


def record(nef: Nef) -> dict[str, Any]:
    """As reports write it."""
    return {
        "platform": nef.platform,
        "target": nef.target,
        "chips": list(nef.chips),
        "schema": ".".join(map(str, nef.schema)),
        "encryption_mode": nef.encryption_mode,
        "compiler_version": nef.compiler_version or UNKNOWN,
        "toolchain_version": nef.toolchain_version or UNKNOWN,
        "models": [{"name": model.name, "id": model.id, "version": model.version} for model in nef.models],
        "models_bytes": nef.models_bytes,
    }
