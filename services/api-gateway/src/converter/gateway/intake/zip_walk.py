"""Looks into a ZIP archive while it arrives: what its files are, and whether it is safe to unpack.

Local headers and contents are read in the order in which they come and then compared with the directory at the end
(APPNOTE.TXT 6.3), so that what was checked is what a reader finds: no overlaps, no second set of files, no sizes that
lie. Compressed files are unpacked as they pass, and dropped.

    BadArchive        the message continues "the archive …"
    ArchiveTooLarge   it, or a file in it, is over a limit when unpacked
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct

from converter.common.arriving import Arriving, CutOff, Reading
from converter.gateway.http.written import shown
from converter.gateway.intake.numpy_file import HEADER_MAX_BYTES

ZIP_MAGIC = b"PK\x03\x04"
NAME_MAX_BYTES = 512
RATIO_MAX = 100
"""How many times a file may grow when it is unpacked; images and weights hardly do."""
RATIO_GRACE_BYTES = 1 << 20
_DIRECTORY, _END, _DESCRIPTOR = b"PK\x01\x02", b"PK\x05\x06", b"PK\x07\x08"
_LOCAL_FIELDS = struct.Struct("<HHHHHIIIHH")
_DIRECTORY_FIELDS = struct.Struct("<HHHHHHIIIHHHHHII")
_END_FIELDS = struct.Struct("<HHHHIIH")
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _STREAMED, _MASKED = 1, 8, 1 << 13
_IN_ZIP64, _ZIP64_EXTRA = 0xFFFFFFFF, 1
_UNIX, _TYPE_MASK, _REGULAR_OR_DIRECTORY = 3, 0o170000, (0, 0o100000, 0o040000)
_UNPACKED_AT_ONCE = 64 << 10


def is_archive(head: bytes) -> bool:
    """Whether a file that starts with `head` is a ZIP archive; an empty one has only an end."""
    return head.startswith((ZIP_MAGIC, _END))


class BadArchive(Exception):
    """The archive cannot be used."""


class ArchiveTooLarge(Exception):
    """A limit is passed: `limit_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"more than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class ZipLimits(Struct, frozen=True, kw_only=True):
    """What an archive may hold, unpacked. `entries` counts directories and hidden files too."""

    entries: int
    file_bytes: int
    all_bytes: int


class _Entry(NamedTuple):
    offset: int
    name: bytes
    method: int
    packed_bytes: int
    size_bytes: int


CheckFile = Callable[[str, bytes, int], None]
"""Given a file's name, its first `HEADER_MAX_BYTES` and its size; raises `BadArchive`, or what shall end the walk."""


class ZipWalk:
    """One walk over one archive, fed with consecutive pieces of any size.

    Args:
        limits: what it may hold.
        check_file: asked about every file in it that is not hidden.
    """

    def __init__(self, limits: ZipLimits, check_file: CheckFile) -> None:
        self.files = 0
        self._limits, self._check_file = limits, check_file
        self._input = Arriving()
        self._entries: dict[int, _Entry] = {}
        self._names: set[bytes] = set()
        self._listed: set[int] = set()
        self._unpacked_bytes = 0
        self._reading = self._archive()
        next(self._reading)

    @property
    def skipping(self) -> int:
        """How many of the next bytes do not matter; feeding that many costs nothing."""
        return self._input.skipping

    def feed(self, piece: bytes) -> None:
        """Look at the next bytes.

        Raises:
            BadArchive, ArchiveTooLarge: whatever follows.
        """
        self._input.supply(piece)
        self._go_on()

    def finish(self) -> None:
        """The archive has ended.

        Raises:
            BadArchive: it is not whole, or has no files.
        """
        self._input.end()
        self._go_on()
        if not self.files:
            raise BadArchive("has no files")

    def _go_on(self) -> None:
        try:
            next(self._reading)
        except StopIteration:
            pass
        except CutOff as cut_off:
            raise BadArchive(f"is damaged: {cut_off}") from cut_off

    def _archive(self) -> Reading[None]:
        while True:
            offset = self._input.position
            signature = yield from self._take(4)
            if signature == ZIP_MAGIC:
                yield from self._file(offset)
            elif signature == _DIRECTORY:
                yield from self._directory_entry()
            elif signature == _END:
                break
            else:
                raise BadArchive(f"is damaged at byte {offset}")
        comment_bytes = _END_FIELDS.unpack((yield from self._take(_END_FIELDS.size)))[-1]
        self._input.skip_to(self._input.position + comment_bytes)
        if self._listed != set(self._entries):
            raise BadArchive("has files that its directory does not list")
        if (yield from self._input.more()):
            raise BadArchive("goes on after its end")

    def _take(self, size_bytes: int) -> Reading[bytes]:
        return (yield from self._input.take(self._input.position + size_bytes))

    def _file(self, offset: int) -> Reading[None]:
        fields = _LOCAL_FIELDS.unpack((yield from self._take(_LOCAL_FIELDS.size)))
        _, flags, method, _, _, _, packed_bytes, size_bytes, name_bytes, extra_bytes = fields
        if len(self._entries) == self._limits.entries:
            raise BadArchive(f"has more than {self._limits.entries} entries")
        if self._listed or name_bytes > NAME_MAX_BYTES:
            raise BadArchive("is damaged, or has a name that is too long")
        raw_name = yield from self._take(name_bytes)
        name = self._admitted(raw_name, flags, method)
        large = _zip64_sizes((yield from self._take(extra_bytes)))
        if _IN_ZIP64 in {packed_bytes, size_bytes}:
            packed_bytes, size_bytes = large or (packed_bytes, size_bytes)
        announced = None if flags & _STREAMED and method == _DEFLATED else (packed_bytes, size_bytes)
        if method == _DEFLATED:
            head, *found = yield from self._unpack(name, announced)
        else:
            head, *found = yield from self._pass(name, packed_bytes)
        if flags & _STREAMED:
            announced = yield from self._descriptor("<QQ" if large else "<II")
        if announced != tuple(found):
            raise BadArchive(f"is damaged: {shown(name)} has other sizes than announced")
        self._entries[offset] = _Entry(offset, raw_name, method, found[0], found[1])
        if not _hidden(name):
            self._check_file(name, head, found[1])
            self.files += 1

    def _admitted(self, raw_name: bytes, flags: int, method: int) -> str:
        """The file's name, if a file like this is taken."""
        name = _checked_name(raw_name)
        if flags & (_ENCRYPTED | _MASKED):
            raise BadArchive(f"is encrypted ({shown(name)})")
        if method not in {_STORED, _DEFLATED}:
            raise BadArchive(f"uses another compression ({shown(name)}); allowed: stored or deflated files")
        if raw_name in self._names:
            raise BadArchive(f"has two files called {shown(name)}")
        self._names.add(raw_name)
        return name

    def _pass(self, name: str, size_bytes: int) -> Reading[tuple[bytes, int, int]]:
        """A stored file: its head, and its size twice."""
        self._count(name, size_bytes, size_bytes, size_bytes)
        end = self._input.position + size_bytes
        head = yield from self._take(min(size_bytes, HEADER_MAX_BYTES))
        self._input.skip_to(end)
        return head, size_bytes, size_bytes

    def _unpack(self, name: str, announced: tuple[int, int] | None) -> Reading[tuple[bytes, int, int]]:
        """A deflated file: its head, how many bytes it has packed, and how many unpacked."""
        begin = self._input.position
        end = begin + (announced[0] if announced else _IN_ZIP64)
        inflate, head, size_bytes = zlib.decompressobj(-15), bytearray(), 0
        while not inflate.eof:
            packed = inflate.unconsumed_tail or (yield from self._input.some(end))
            if not packed:
                raise BadArchive(f"is damaged: {shown(name)} goes on past its announced size")
            try:
                unpacked = inflate.decompress(packed, _UNPACKED_AT_ONCE)
            except zlib.error as error:
                raise BadArchive(f"is damaged: {shown(name)} cannot be unpacked") from error
            size_bytes += len(unpacked)
            head += unpacked[: HEADER_MAX_BYTES - len(head)]
            self._count(name, len(unpacked), size_bytes, self._input.position - begin)
        self._input.skip_to(self._input.position - len(inflate.unused_data))
        return bytes(head), self._input.position - begin, size_bytes

    def _count(self, name: str, more_bytes: int, size_bytes: int, packed_bytes: int) -> None:
        self._unpacked_bytes += more_bytes
        if size_bytes > RATIO_GRACE_BYTES and size_bytes > RATIO_MAX * packed_bytes:
            raise BadArchive(f"grows more than {RATIO_MAX} times when {shown(name)} is unpacked")
        if size_bytes > self._limits.file_bytes:
            raise ArchiveTooLarge(self._limits.file_bytes)
        if self._unpacked_bytes > self._limits.all_bytes:
            raise ArchiveTooLarge(self._limits.all_bytes)

    def _descriptor(self, sizes: str) -> Reading[tuple[int, int]]:
        """The sizes that stand behind a file whose writer did not know them before."""
        if (yield from self._take(4)) == _DESCRIPTOR:
            yield from self._take(4)
        packed_bytes, size_bytes = struct.unpack(sizes, (yield from self._take(struct.calcsize(sizes))))
        return packed_bytes, size_bytes

    def _directory_entry(self) -> Reading[None]:
        fields = _DIRECTORY_FIELDS.unpack((yield from self._take(_DIRECTORY_FIELDS.size)))
        made_by, _, flags, method, _, _, _, packed_bytes, size_bytes, name_bytes, extra_bytes, comment_bytes = fields[
            :12
        ]
        mode, offset = fields[14] >> 16, fields[15]
        if name_bytes > NAME_MAX_BYTES:
            raise BadArchive("is damaged: its directory lists a name that is too long")
        name = yield from self._take(name_bytes)
        self._input.skip_to(self._input.position + extra_bytes + comment_bytes)
        if flags & (_ENCRYPTED | _MASKED) or self._entries.get(offset) != (
            _Entry(offset, name, method, packed_bytes, size_bytes)
        ):
            raise BadArchive("is damaged: its directory lists other files than it has")
        if offset in self._listed:
            raise BadArchive("is damaged: its directory lists a file twice")
        if made_by >> 8 == _UNIX and mode & _TYPE_MASK not in _REGULAR_OR_DIRECTORY:
            raise BadArchive(f"has a link or a device: {shown(name.decode('utf-8', 'replace'))}")
        self._listed.add(offset)


def _zip64_sizes(extra: bytes) -> tuple[int, int] | None:
    """The packed and unpacked size in a local header's extra field; NumPy writes them there whatever they are."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == _ZIP64_EXTRA and length >= 16 and at + 20 <= len(extra):  # noqa: PLR2004 - two numbers of 8 bytes
            size_bytes, packed_bytes = struct.unpack_from("<QQ", extra, at + 4)
            return packed_bytes, size_bytes
        at += 4 + length
    return None


def _checked_name(raw: bytes) -> str:
    """The name, if it stays below the place where somebody unpacks the archive."""
    name = raw.decode("utf-8", "replace")
    segments = name.removesuffix("/").split("/")
    if not name or "\\" in name or "\x00" in name or ":" in segments[0] or not {"", ".", ".."}.isdisjoint(segments):
        raise BadArchive(f"has a name that leads elsewhere: {shown(name)}")
    return name


def _hidden(name: str) -> bool:
    """Whether it is a directory, or one of the files that systems add on their own."""
    last = name.rpartition("/")[2]
    return not last or last.startswith(".") or last == "Thumbs.db" or name.startswith("__MACOSX/")
