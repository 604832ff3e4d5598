"""What has arrived of a job's form, part by part."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Protocol

import msgspec
from msgspec import Struct
from multipart import MultipartSegment

from converter.common.idempotency import Fingerprint
from converter.common.skim import Skimmed
from converter.common.storage import Writer
from converter.contracts.job import Model, ReferenceSet, StoredObject
from converter.gateway.http.errors import SMALL_BODY_MAX_BYTES, FieldError, Refusal, bad_fields, bad_part
from converter.gateway.http.written import printable, shown
from converter.gateway.intake.model_part import ModelPart
from converter.gateway.intake.options import Fields, JobOrder
from converter.gateway.intake.references import ReferenceLimits, References
from converter.gateway.intake.shelf import Shelf

FIELDS_MAX = 64
FILENAME_MAX_CHARS = 200
IMAGE_FIELDS = ("ref_images", "ref_images[]")

LookAtLock = Callable[[str], Coroutine[None, None, None]]
"""Raises when the user whose id it is given may not have another job now."""


class IntakeLimits(Struct, frozen=True, kw_only=True):
    """What one form may hold."""

    model_max_bytes: int
    image_max_bytes: int
    images_max_count: int

    @property
    def body_max_bytes(self) -> int:
        """The largest body that can be within every limit."""
        return self.model_max_bytes + self.references.all_bytes + FIELDS_MAX * SMALL_BODY_MAX_BYTES

    @property
    def references(self) -> ReferenceLimits:
        """Those of the reference set."""
        return ReferenceLimits(file_bytes=self.image_max_bytes, count=self.images_max_count)


class Arrived(Struct, frozen=True, kw_only=True):
    """A whole, valid form. The model is missing when fields name one that is here already."""

    order: JobOrder
    model: Model | None
    skimmed: Skimmed | None
    ref_images: ReferenceSet | None
    fingerprint: Fingerprint
    """The same for the same fields and files, in whatever order they came."""


class Part(Protocol):
    """One part of the form, as it arrives."""

    async def take(self, data: bytes) -> None:
        """Its next bytes."""

    async def end(self) -> None:
        """It is whole."""


class Form:
    """Takes the parts.

    Args:
        shelf: where files go.
        prefix: of their keys.
        limits: what there may be.
        look_at_lock: asked once, when a user is known and a file begins, or the form is whole.
        open_writers: ends what is not completed.
        fields: takes the fields.
    """

    def __init__(
        self,
        shelf: Shelf,
        prefix: str,
        limits: IntakeLimits,
        look_at_lock: LookAtLock,
        open_writers: AsyncExitStack,
        fields: Fields,
    ) -> None:
        self._shelf, self._prefix, self._limits = shelf, prefix, limits
        self._look_at_lock, self._open_writers = look_at_lock, open_writers
        self._fields = fields
        self._model: ModelPart | None = None
        self._looking: asyncio.Task[None] | None = None
        self._references = References(shelf, prefix, limits.references, open_writers)

    async def part(self, segment: MultipartSegment) -> Part:
        """What takes the part that begins."""
        if segment.filename is None:
            if segment.name in ("model", *IMAGE_FIELDS):
                raise bad_part(segment.name, "found a field; allowed: a file, sent with its name")
            return _FieldPart(segment.name, self._fields)
        if segment.name == "model":
            return await self._begin_model(base_name(segment.filename))
        if segment.name in IMAGE_FIELDS:
            if not self._references.count:
                self._before_file()
            return self._references.part(base_name(segment.filename))
        raise bad_part(printable(segment.name), "a file is not taken here; allowed: model, ref_images")

    async def looked(self) -> None:
        """Let nothing more be read before the user's lock has been looked at. Raises what that raises."""
        if self._looking is not None:
            await self._looking

    async def complete(self, stored: list[StoredObject]) -> Arrived:
        """Make the files visible; each is added to `stored` as soon as it is.

        Raises:
            Refusal: a field is bad or missing, or the model is.
        """
        order = self._fields.order(with_file=self._model is not None)
        if not isinstance(order, JobOrder):
            raise bad_fields(order)
        if self._model is None and order.model_upload_id is None and order.model_sha256 is None:
            raise bad_part("model", "missing; allowed: an ONNX file, or model_upload_id or model_sha256 instead")
        self._begin_to_look()
        await self.looked()

        async def keep_references(writer: Writer) -> ReferenceSet:
            stored.append(file := await writer.commit())
            return ReferenceSet(
                object_key=file.object_key,
                size_bytes=file.size_bytes,
                sha256=file.sha256,
                count=self._references.count,
            )

        ref_images = await self._references.complete(keep_references)
        model = None
        if self._model is not None:
            stored.append(file := await self._model.writer.commit())
            check_digest(order, file)
            model = named(file, self._model.filename)
        return Arrived(
            order=order,
            model=model,
            skimmed=self._model.skimmed if self._model else None,
            ref_images=ref_images,
            fingerprint=self._fingerprint(model, ref_images),
        )

    def _fingerprint(self, model: Model | None, ref_images: ReferenceSet | None) -> Fingerprint:
        files = [model and (model.filename, model.sha256), ref_images and ref_images.sha256]
        fields = dict(self._fields.texts)
        whole = _digest(fields, files)
        if "model_sha256" in fields:
            fields.pop("model_upload_id", None)
        return Fingerprint(whole, _digest(fields, files))

    async def _begin_model(self, filename: str) -> Part:
        if self._model is not None:
            raise bad_part("model", "sent twice; allowed: one file")
        if not filename.lower().endswith(".onnx"):
            raise bad_part("model", f"found the file name {shown(filename)}; allowed: names that end with .onnx")
        self._before_file()
        writer = await self._open_writers.enter_async_context(self._shelf.writer(model_key(self._prefix)))
        self._model = ModelPart(filename, writer, self._limits.model_max_bytes)
        return self._model

    def _before_file(self) -> None:
        """Refuse what is known to be wrong already, and begin to look at the lock while what is here is read."""
        if problems := self._fields.problems():
            raise bad_fields(problems)
        self._begin_to_look()

    def _begin_to_look(self) -> None:
        user_id = self._fields.user_id()
        if user_id and self._looking is None:
            self._looking = asyncio.create_task(self._look_at_lock(user_id))
            self._open_writers.push_async_callback(_over, self._looking)


class _FieldPart:
    def __init__(self, name: str, fields: Fields) -> None:
        self._name, self._fields, self._text = printable(name), fields, b""

    async def take(self, data: bytes) -> None:
        self._text += data
        if len(self._text) > SMALL_BODY_MAX_BYTES:
            raise self._bad(f"longer than {SMALL_BODY_MAX_BYTES} bytes")

    async def end(self) -> None:
        try:
            self._fields.add(self._name, self._text.decode())
        except UnicodeDecodeError as error:
            raise self._bad("not UTF-8 text") from error

    def _bad(self, message: str) -> Refusal:
        return bad_fields([*self._fields.problems(), FieldError(self._name, message)])


def _digest(fields: Mapping[str, list[str]], files: Sequence[object]) -> str:
    return hashlib.sha256(msgspec.json.encode([sorted(fields.items()), files])).hexdigest()


async def _over(looking: asyncio.Task[None]) -> None:
    """Leave no look behind whose outcome nobody waits for any more."""
    looking.cancel()
    await asyncio.wait({looking})
    if not looking.cancelled():
        looking.exception()


def model_key(prefix: str) -> str:
    """Where the model of a job lies."""
    return f"{prefix}/model.onnx"


def named(file: StoredObject, filename: str) -> Model:
    """The stored file as a model with the client's name."""
    return Model(object_key=file.object_key, size_bytes=file.size_bytes, sha256=file.sha256, filename=filename)


def check_digest(order: JobOrder, file: StoredObject) -> None:
    """Compare the model with the digest that the client expects, if it said one.

    Raises:
        Refusal: `digest_mismatch`.
    """
    if order.model_sha256 not in (None, file.sha256):
        details = {"expected_sha256": order.model_sha256, "found_sha256": file.sha256}
        raise Refusal("digest_mismatch", details=details)


def base_name(filename: str) -> str:
    """The last component of a file name that a client sent, printable and of bounded length; its end is kept."""
    return printable(filename.replace("\\", "/").rpartition("/")[2], "_")[-FILENAME_MAX_CHARS:]
