"""Takes in a job's multipart form: fields are read, files go to object storage piece by piece.

Nothing is kept in memory or on disk here, and nothing is left in storage unless the job is created.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

import structlog
from litestar.types import Receive
from msgspec import Struct
from multipart import MultipartError, MultipartSegment, PushMultipartParser

from converter.common.storage import ArtifactStore, StorageError, Writer
from converter.common.storage.unbroken import to_the_end
from converter.contracts.job import Model, ReferenceSet, StoredObject
from converter.gateway.archive import ImageArchive
from converter.gateway.body import Pace, chunks
from converter.gateway.errors import SMALL_BODY_MAX_BYTES, FieldError, Refusal, bad_fields, bad_part
from converter.gateway.model_kind import IMAGE_HEAD_BYTES, NotOnnx, OnnxRecogniser, image_kind, looks_like
from converter.gateway.options import Fields, JobOrder
from converter.gateway.written import printable, shown

log = structlog.get_logger()

FIELDS_MAX = 64
FILENAME_MAX_CHARS = 200
IMAGE_FIELDS = ("ref_images", "ref_images[]")

LookAtLock = Callable[[str], Awaitable[None]]
"""Raises when the user whose id it is given may not have another job now."""


class IntakeLimits(Struct, frozen=True, kw_only=True):
    """What one form may hold."""

    model_max_bytes: int
    image_max_bytes: int
    images_max_count: int

    @property
    def body_max_bytes(self) -> int:
        """The largest body that can be within every limit."""
        return self.model_max_bytes + self.images_max_count * self.image_max_bytes + FIELDS_MAX * SMALL_BODY_MAX_BYTES


class Inputs:
    """A whole, valid form; its files are stored under the job's key and are removed again unless `keep` is called."""

    def __init__(self, order: JobOrder, model: Model, ref_images: ReferenceSet | None) -> None:
        self.order, self.model, self.ref_images = order, model, ref_images
        self.kept = False

    def keep(self) -> None:
        """Leave the files: the job may exist from now on."""
        self.kept = True

    def release(self) -> None:
        """The job does not exist after all."""
        self.kept = False


@asynccontextmanager
async def received(
    receive: Receive,
    boundary: str,
    *,
    store: ArtifactStore,
    job_id: str,
    limits: IntakeLimits,
    pace: Pace,
    look_at_lock: LookAtLock,
) -> AsyncIterator[Inputs]:
    """Take in one form.

    Args:
        receive: gives the body.
        boundary: of the multipart form.
        store: where the files go, under `jobs/<job_id>/input/`.
        job_id: the job to be.
        limits: what the form may hold.
        pace: how slow the client may be.
        look_at_lock: asked once a user is known and before a file is read.

    Raises:
        Refusal: the form cannot be used, says why.
        ClientGone: the client vanished.
        StorageUnavailable: the files cannot be stored.
    """
    stored: list[StoredObject] = []
    inputs: Inputs | None = None
    try:
        async with AsyncExitStack() as open_writers:
            form = _Form(store, f"jobs/{job_id}/input", limits, look_at_lock, open_writers)
            await _read(form, receive, boundary, limits, pace)
            inputs = await form.complete(stored)
        yield inputs
    finally:
        if inputs is None or not inputs.kept:
            await to_the_end(_remove(store, stored))


async def _remove(store: ArtifactStore, stored: list[StoredObject]) -> None:
    for obj in stored:
        try:
            await store.delete(obj.object_key)
        except StorageError as error:
            # The janitor removes what no job refers to; the client's answer does not change.
            log.warning("intake.not_removed", object_key=obj.object_key, error=str(error))


async def _read(form: _Form, receive: Receive, boundary: str, limits: IntakeLimits, pace: Pace) -> None:
    segments_max = FIELDS_MAX + 1 + limits.images_max_count
    part: _Part | None = None
    try:
        with PushMultipartParser(boundary, max_segment_count=segments_max) as parser:
            async for chunk in chunks(receive, limit_bytes=limits.body_max_bytes, pace=pace):
                for event in parser.parse(chunk):
                    if isinstance(event, MultipartSegment):
                        part = await form.part(event)
                    elif part is not None and event is not None:
                        await part.take(event)
                    elif part is not None:
                        await part.end()
    except MultipartError as error:
        raise Refusal("invalid_multipart", f"The multipart body does not parse: {error}.") from error


class _Part(Protocol):
    """One part of the form, as it arrives."""

    async def take(self, data: bytes) -> None:
        """Its next bytes."""

    async def end(self) -> None:
        """It is whole."""


class _Form:
    """What has arrived of a form."""

    def __init__(
        self,
        store: ArtifactStore,
        prefix: str,
        limits: IntakeLimits,
        look_at_lock: LookAtLock,
        open_writers: AsyncExitStack,
    ) -> None:
        self._store, self._prefix, self._limits = store, prefix, limits
        self._look_at_lock, self._open_writers = look_at_lock, open_writers
        self.fields = Fields()
        self._model: _ModelPart | None = None
        self._images: tuple[Writer, ImageArchive] | None = None

    async def part(self, segment: MultipartSegment) -> _Part:
        """What takes the part that begins."""
        if segment.filename is None:
            if segment.name in ("model", *IMAGE_FIELDS):
                raise bad_part(segment.name, "found a field; allowed: a file, sent with its name")
            return _FieldPart(segment.name, self.fields)
        if segment.name == "model":
            return await self._begin_model(base_name(segment.filename))
        if segment.name in IMAGE_FIELDS:
            return await self._begin_image(base_name(segment.filename))
        raise bad_part(printable(segment.name), "a file is not taken here; allowed: model, ref_images")

    async def complete(self, stored: list[StoredObject]) -> Inputs:
        """Make the files visible; each is added to `stored` as soon as it is.

        Raises:
            Refusal: a field is bad or missing, or the model is.
        """
        order = self.fields.order()
        if not isinstance(order, JobOrder):
            raise bad_fields(order)
        if self._model is None:
            raise bad_part("model", "missing; allowed: an ONNX file")
        ref_images = None
        if self._images is not None:
            writer, archive = self._images
            await archive.finish()
            stored.append(images := await writer.commit())
            ref_images = ReferenceSet(
                object_key=images.object_key, size_bytes=images.size_bytes, sha256=images.sha256, count=archive.count
            )
        stored.append(file := await self._model.writer.commit())
        if order.model_sha256 not in (None, file.sha256):
            details = {"expected_sha256": order.model_sha256, "found_sha256": file.sha256}
            raise Refusal("digest_mismatch", details=details)
        model = Model(
            object_key=file.object_key, size_bytes=file.size_bytes, sha256=file.sha256, filename=self._model.filename
        )
        return Inputs(order, model, ref_images)

    async def _begin_model(self, filename: str) -> _Part:
        if self._model is not None:
            raise bad_part("model", "sent twice; allowed: one file")
        if not filename.lower().endswith(".onnx"):
            raise bad_part("model", f"found the file name {shown(filename)}; allowed: names that end with .onnx")
        await self._before_file()
        writer = await self._open_writers.enter_async_context(self._store.writer(f"{self._prefix}/model.onnx"))
        self._model = _ModelPart(filename, writer, self._limits.model_max_bytes)
        return self._model

    async def _begin_image(self, filename: str) -> _Part:
        if self._images is None:
            await self._before_file()
        index = self._images[1].count if self._images else 0
        return _ImagePart(f"ref_images[{index}]", filename, self)

    async def _before_file(self) -> None:
        """Refuse before the file's bytes what is known to be refused after them."""
        if problems := self.fields.problems():
            raise bad_fields(problems)
        if user_id := self.fields.user_id():
            await self._look_at_lock(user_id)

    async def archive(self) -> ImageArchive:
        """Where the next image goes.

        Raises:
            Refusal: there are as many as there may be.
        """
        if self._images is None:
            key = f"{self._prefix}/ref_images.zip"
            writer = await self._open_writers.enter_async_context(self._store.writer(key, media_type="application/zip"))
            self._images = writer, self._open_writers.enter_context(ImageArchive(writer))
        archive, limit = self._images[1], self._limits.images_max_count
        if archive.count >= limit:
            raise bad_part("ref_images", f"found more than {limit} images", limit=limit)
        return archive

    @property
    def image_max_bytes(self) -> int:
        return self._limits.image_max_bytes


class _FieldPart:
    def __init__(self, name: str, fields: Fields) -> None:
        self._name, self._fields, self._text = printable(name), fields, b""

    async def take(self, data: bytes) -> None:
        self._text += data
        if len(self._text) > SMALL_BODY_MAX_BYTES:
            raise bad_fields([FieldError(self._name, f"longer than {SMALL_BODY_MAX_BYTES} bytes")])

    async def end(self) -> None:
        try:
            self._fields.add(self._name, self._text.decode())
        except UnicodeDecodeError as error:
            raise bad_fields([FieldError(self._name, "not UTF-8 text")]) from error


class _ModelPart:
    def __init__(self, filename: str, writer: Writer, limit_bytes: int) -> None:
        self.filename, self.writer = filename, writer
        self._limit_bytes, self._recogniser = limit_bytes, OnnxRecogniser()

    async def take(self, data: bytes) -> None:
        if self.writer.size_bytes + len(data) > self._limit_bytes:
            raise too_large("model", self._limit_bytes)
        try:
            self._recogniser.feed(data)
        except NotOnnx as error:
            raise bad_part("model", f"the file {error}; allowed: an ONNX model") from error
        await self.writer.write(data)

    async def end(self) -> None:
        try:
            self._recogniser.finish()
        except NotOnnx as error:
            raise bad_part("model", f"the file {error}; allowed: an ONNX model") from error


class _ImagePart:
    """One image. Its first bytes are held back until they show what it is."""

    def __init__(self, field: str, filename: str, form: _Form) -> None:
        self._field, self._filename, self._form = field, filename, form
        self._head: bytes = b""
        self._archive: ImageArchive | None = None
        self._size_bytes = 0

    async def take(self, data: bytes) -> None:
        self._size_bytes += len(data)
        if self._size_bytes > self._form.image_max_bytes:
            raise too_large(self._field, self._form.image_max_bytes)
        if self._archive is not None:
            await self._archive.write(data)
            return
        self._head += data
        if len(self._head) >= IMAGE_HEAD_BYTES:
            await self._begin()

    async def end(self) -> None:
        if self._archive is None:
            if not self._head and not self._filename:
                return  # a browser's file input that was left empty
            await self._begin()
        if self._archive is not None:
            await self._archive.end()

    async def _begin(self) -> None:
        if image_kind(self._head) is None:
            found = looks_like(self._head) if self._head else "is empty"
            raise bad_part(self._field, f"the file {found}; allowed: PNG, JPEG, BMP, WebP")
        self._archive = await self._form.archive()
        await self._archive.begin(self._filename)
        await self._archive.write(self._head)


def too_large(field: str, limit_bytes: int) -> Refusal:
    """413 for a file that goes on past its limit."""
    message = f"{field} is over its limit of {limit_bytes} bytes."
    return Refusal("file_too_large", message, details={"limit_bytes": limit_bytes, "field": field})


def base_name(filename: str) -> str:
    """The last component of a file name that a client sent, printable and of bounded length; its end is kept."""
    return printable(filename.replace("\\", "/").rpartition("/")[2], "_")[-FILENAME_MAX_CHARS:]
