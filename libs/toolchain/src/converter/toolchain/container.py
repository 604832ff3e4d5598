"""The artifacts' file format: a stored ZIP whose bytes depend on nothing but its content.

`mimetype` comes first, so the media type stands readable at byte 38 (the convention of OpenDocument and EPUB, OCF 3.3);
then `manifest.json`, which has the size and SHA-256 of every other member; then the members by name. No member is
compressed, every timestamp is 1980-01-01, nothing stands before or after the archive.

    Corrupt    a file is not such a container, or not as it was written
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MIMETYPE, MANIFEST = "mimetype", "manifest.json"
FORMAT = 1
MOST_MEMBERS = 64
MOST_MANIFEST_BYTES = 1 << 20
MOST_BYTES = 4 << 30

_LOCAL_HEADER, _END_RECORD = 30, 22
_LOCAL_MAGIC, _END_MAGIC = b"PK\x03\x04", b"PK\x05\x06"
_ENCRYPTED = 0x1
_UNIX, _REGULAR_FILE = 3, 0o100644 << 16


class Corrupt(ValueError):
    """The file is not a container of this format, or its bytes are not those that were written."""


def json_bytes(value: Any) -> bytes:  # noqa: ANN401 - whatever JSON can hold
    """`value` as JSON in one way only: keys sorted, UTF-8.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def write(path: Path, media_type: str, about: Mapping[str, Any], members: Mapping[str, bytes]) -> None:
    """Writes a container to `path`; equal arguments give equal bytes. `about` becomes the manifest's `about`."""
    manifest = {
        "format": FORMAT,
        "media_type": media_type,
        "about": dict(about),
        "members": {name: _seal(content) for name, content in members.items()},
    }
    ordered = [(MIMETYPE, media_type.encode()), (MANIFEST, json_bytes(manifest)), *sorted(members.items())]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
        for name, content in ordered:
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = _UNIX, _REGULAR_FILE
            archive.writestr(entry, content)


def _seal(content: bytes) -> dict[str, Any]:
    return {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


class Container(Struct, frozen=True, kw_only=True):
    """What a container holds, every digest verified. `about` is what its writer said of it."""

    media_type: str
    about: dict[str, Any]
    members: dict[str, bytes]

    def member(self, name: str) -> bytes:
        """The content of the member `name`.

        Raises:
            Corrupt: there is none.
        """
        if name not in self.members:
            raise Corrupt(f"the container has no member {name!r}")
        return self.members[name]


def read(path: Path, *media_types: str) -> Container:
    """The container at `path`, of one of `media_types`.

    Raises:
        Corrupt: it is not such a container, or has been changed. Nothing else is raised for any bytes.
    """
    size = path.stat().st_size
    try:
        media_type = _check_frame(path, size, media_types)
        with zipfile.ZipFile(path) as archive:
            manifest = _manifest(archive)
            members = {name: _verified(archive, name, seal) for name, seal in manifest["members"].items()}
    except Corrupt:
        raise
    except Exception as error:  # zipfile raises many classes for damaged archives
        raise Corrupt(f"not a whole container: {error}"[:200]) from error
    return Container(media_type=media_type, about=manifest["about"], members=members)


def _check_frame(path: Path, size: int, media_types: tuple[str, ...]) -> str:
    """The media type; checks what a ZIP reader forgives: bytes before the first member and after the last record."""
    with path.open("rb") as file:
        head = file.read(512)
        file.seek(max(size - _END_RECORD, 0))
        tail = file.read(_END_RECORD)
    name_end = _LOCAL_HEADER + len(MIMETYPE)
    if not head.startswith(_LOCAL_MAGIC) or head[_LOCAL_HEADER:name_end] != MIMETYPE.encode():
        raise Corrupt("it is no .ref.bie or .ref.nef: it does not begin with a mimetype")
    if not tail.startswith(_END_MAGIC):
        raise Corrupt("the file does not end with its directory")
    for media_type in media_types:
        if head[name_end:].startswith(media_type.encode() + _LOCAL_MAGIC):
            return media_type
    raise Corrupt(f"the file is not of the type {' or '.join(media_types)}")


def _manifest(archive: zipfile.ZipFile) -> dict[str, Any]:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if len(entries) > MOST_MEMBERS or len(set(names)) != len(names):
        raise Corrupt(f"the container has {len(entries)} members, or two of one name")
    if sum(entry.file_size for entry in entries) > MOST_BYTES:
        raise Corrupt("the container is too big")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED:
            raise Corrupt(f"the member {entry.filename!r} is compressed or encrypted")
    if MANIFEST not in names:
        raise Corrupt("the container has no manifest")
    content = _member(archive, MANIFEST, min(archive.getinfo(MANIFEST).file_size, MOST_MANIFEST_BYTES))
    try:
        manifest = json.loads(content)
        known = {name: (seal["size_bytes"], seal["sha256"]) for name, seal in manifest["members"].items()}
        about, number = manifest["about"], manifest["format"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Corrupt(f"the manifest cannot be read: {type(error).__name__}") from error
    sound = isinstance(about, dict) and all(isinstance(size, int) and size >= 0 for size, _ in known.values())
    if number != FORMAT or not sound:
        raise Corrupt(f"the manifest is not of format {FORMAT}")
    if {MIMETYPE, MANIFEST, *known} != set(names):
        raise Corrupt("the members are not those in the manifest")
    return dict(manifest)


def _verified(archive: zipfile.ZipFile, name: str, seal: dict[str, Any]) -> bytes:
    content = _member(archive, name, seal["size_bytes"])
    if hashlib.sha256(content).hexdigest() != seal["sha256"]:
        raise Corrupt(f"the member {name!r} does not have the digest in the manifest")
    return content


def _member(archive: zipfile.ZipFile, name: str, size_bytes: int) -> bytes:
    """The content of a member that must have exactly `size_bytes`."""
    with archive.open(name) as member:
        content = member.read(size_bytes + 1)
    if len(content) != size_bytes:
        raise Corrupt(f"the member {name!r} does not have the size in the manifest")
    return content
