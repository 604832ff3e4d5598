"""The reference set of a job: loose files that become one stored ZIP while they arrive, or a ZIP that the client made.

Images and archives count by their content, arrays by their header; an `.npz` is told from other archives by its name.
Whether an image can be decoded only the stage finds out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager

from msgspec import Struct

from converter.common.skim import looks_like
from converter.common.storage import Writer
from converter.contracts.job import ReferenceSet
from converter.gateway.http.errors import Refusal, bad_part
from converter.gateway.http.written import shown
from converter.gateway.intake.archive import ImageArchive
from converter.gateway.intake.fed import feed
from converter.gateway.intake.image_kind import image_kind
from converter.gateway.intake.numpy_file import HEADER_MAX_BYTES, NPY_MAGIC, BadArray, check_npy
from converter.gateway.intake.shelf import Shelf
from converter.gateway.intake.zip_walk import ZIP_MAGIC, ArchiveTooLarge, BadArchive, ZipLimits, ZipWalk, is_archive

ALLOWED = "PNG, JPEG, BMP, WebP, .npy, .npz, or one .zip of such files"
HIDDEN_FILES_PER_FILE = 4
ARRAYS_MAX = 64
"""Inputs of a model, in one `.npz`."""


class ReferenceLimits(Struct, frozen=True, kw_only=True):
    """What a reference set may hold. `file_bytes` is of one file, unpacked."""

    file_bytes: int
    count: int

    @property
    def all_bytes(self) -> int:
        """The largest set that is within both."""
        return self.file_bytes * self.count


def references_key(prefix: str) -> str:
    """Where the reference set of a job lies."""
    return f"{prefix}/ref_images.zip"


class References:
    """The files as they come.

    Args:
        shelf: where the set goes.
        prefix: of its key.
        limits: what it may hold.
        open_writers: ends what is not completed.
    """

    def __init__(self, shelf: Shelf, prefix: str, limits: ReferenceLimits, open_writers: AsyncExitStack) -> None:
        self.limits = limits
        self._shelf, self._key, self._open_writers = shelf, references_key(prefix), open_writers
        self._writer: Writer | None = None
        self._loose: ImageArchive | None = None
        self._sent: ZipWalk | None = None

    @property
    def count(self) -> int:
        """How many samples there are so far."""
        if self._sent is not None:
            return self._sent.files
        return self._loose.count if self._loose is not None else 0

    def part(self, filename: str) -> ReferencePart:
        """What takes the next file."""
        return ReferencePart(f"ref_images[{self.count}]", filename, self)

    async def loose(self, field: str) -> ImageArchive:
        """Where the next loose file goes.

        Raises:
            Refusal: there are as many as there may be, or a ZIP.
        """
        if self._sent is not None:
            raise bad_part(field, "comes after a ZIP archive; allowed: one archive, or loose files")
        if self._loose is None:
            self._loose = self._open_writers.enter_context(ImageArchive(await self._begin()))
        self._check_room()
        return self._loose

    async def sent(self, field: str) -> tuple[Writer, ZipWalk]:
        """Where the client's own ZIP goes, and what looks into it.

        Raises:
            Refusal: there are other files.
        """
        if self._writer is not None:
            raise bad_part(field, "is a ZIP archive among other files; allowed: one archive, or loose files")
        writer = await self._begin()
        self._sent = ZipWalk(
            ZipLimits(
                entries=self.limits.count * (1 + HIDDEN_FILES_PER_FILE),
                file_bytes=self.limits.file_bytes,
                all_bytes=self.limits.all_bytes,
            ),
            self._check_sent,
        )
        return writer, self._sent

    async def complete(self, keep: Callable[[Writer], Awaitable[ReferenceSet]]) -> ReferenceSet | None:
        """The set, made visible by `keep`; none when no file came."""
        if self._writer is None:
            return None
        if self._loose is not None:
            await self._loose.finish()
        return await keep(self._writer)

    async def _begin(self) -> Writer:
        self._writer = await self._open_writers.enter_async_context(
            self._shelf.writer(self._key, media_type="application/zip")
        )
        return self._writer

    def _check_room(self) -> None:
        if self.count >= self.limits.count:
            raise bad_part("ref_images", f"found more than {self.limits.count} files", limit=self.limits.count)

    def _check_sent(self, name: str, head: bytes, size_bytes: int) -> None:
        self._check_room()
        if head.startswith(NPY_MAGIC):
            _check_array(name, head, size_bytes)
        elif image_kind(head) is None and not (head.startswith(ZIP_MAGIC) and _is_npz(name)):
            kind = looks_like(head) or "of an unknown kind"
            raise BadArchive(f"has {shown(name)}, which is {kind}; allowed: PNG, JPEG, BMP, WebP, .npy, .npz")


class ReferencePart:
    """One file. Its first bytes are held back until they show what it is."""

    def __init__(self, field: str, filename: str, references: References) -> None:
        self._field, self._filename, self._references = field, filename, references
        self._head: bytes = b""
        self._size_bytes = 0
        self._limit_bytes = references.limits.file_bytes
        self._walk: ZipWalk | None = None
        self._store: Callable[[bytes], Awaitable[None]] | None = None
        self._loose: ImageArchive | None = None

    async def take(self, data: bytes) -> None:
        """Its next bytes."""
        self._size_bytes += len(data)
        if self._store is None:
            self._head += data
            if len(self._head) < HEADER_MAX_BYTES:
                return
            await self._begin()
            data = self._head
        await self._keep(data)

    async def end(self) -> None:
        """It is whole."""
        if self._store is None:
            if not self._head and not self._filename:
                return  # a browser's file input that was left empty
            await self._begin()
            await self._keep(self._head)
        if self._walk is not None:
            with _refused(self._field):
                self._walk.finish()
        if self._head.startswith(NPY_MAGIC):
            with _refused(self._field):
                check_npy(self._head, self._size_bytes)
        if self._loose is not None:
            await self._loose.end()

    async def _begin(self) -> None:
        """Find out what it is, and where it goes."""
        archive = is_archive(self._head)
        if archive and not _is_npz(self._filename):
            writer, self._walk = await self._references.sent(self._field)
            self._store, self._limit_bytes = writer.write, self._references.limits.all_bytes
            return
        if archive:
            file_bytes = self._references.limits.file_bytes
            limits = ZipLimits(entries=ARRAYS_MAX, file_bytes=file_bytes, all_bytes=file_bytes)
            self._walk = ZipWalk(limits, _check_member_array)
        elif image_kind(self._head) is None and not self._head.startswith(NPY_MAGIC):
            kind = looks_like(self._head)
            found = "is empty" if not self._head else f"looks like {kind}" if kind else "is of an unknown kind"
            raise bad_part(self._field, f"the file {found}; allowed: {ALLOWED}")
        self._loose = await self._references.loose(self._field)
        await self._loose.begin(self._filename)
        self._store = self._loose.write

    async def _keep(self, data: bytes) -> None:
        if self._size_bytes > self._limit_bytes:
            raise too_large(self._field, self._limit_bytes)
        if self._walk is not None:
            with _refused(self._field):
                await feed(self._walk, data)
        if self._store is not None:
            await self._store(data)


@contextmanager
def _refused(field: str) -> Iterator[None]:
    """Answers what is wrong with an archive or an array."""
    try:
        yield
    except BadArchive as error:
        raise bad_part(field, f"the archive {error}") from error
    except BadArray as error:
        raise bad_part(field, f"the array {error}") from error
    except ArchiveTooLarge as error:
        raise too_large(field, error.limit_bytes) from error


def too_large(field: str, limit_bytes: int) -> Refusal:
    """413 for a file that goes on past its limit."""
    message = f"{field} is over its limit of {limit_bytes} bytes."
    return Refusal("file_too_large", message, details={"limit_bytes": limit_bytes, "field": field})


def _is_npz(name: str) -> bool:
    return name.lower().endswith(".npz")


def _check_array(name: str, head: bytes, size_bytes: int) -> None:
    try:
        check_npy(head, size_bytes)
    except BadArray as error:
        raise BadArchive(f"has {shown(name)}, an array that {error}") from error


def _check_member_array(name: str, head: bytes, size_bytes: int) -> None:
    if not name.endswith(".npy"):
        raise BadArchive(f"has {shown(name)}; allowed in an .npz: arrays")
    _check_array(name, head, size_bytes)
