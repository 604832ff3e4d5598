"""Takes in a job's multipart form: fields are read, files go to object storage piece by piece.

Nothing is kept in memory or on disk here, and nothing is left in storage unless the job is created.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from litestar.types import Receive
from msgspec import Struct
from msgspec.structs import replace
from multipart import MultipartError, MultipartSegment, PushMultipartParser

from converter.common.idempotency import Fingerprint
from converter.common.skim import Skimmed
from converter.common.storage import StorageError
from converter.common.unbroken import to_the_end
from converter.contracts.job import JobRequest, Model, ReferenceSet, StoredObject
from converter.gateway.http.body import Pace, chunks
from converter.gateway.http.errors import Refusal
from converter.gateway.intake.content_digest import ContentDigest
from converter.gateway.intake.form import FIELDS_MAX, Arrived, Form, IntakeLimits, LookAtLock, Part, model_key, named
from converter.gateway.intake.options import Fields, JobOrder
from converter.gateway.intake.references import references_key
from converter.gateway.intake.shelf import Nowhere, Shelf

log = structlog.get_logger()


class FormBody(Struct, frozen=True, kw_only=True):
    """A request's body that is a form, how it may come, and whether it must say whose job it is."""

    receive: Receive
    boundary: str
    digest: ContentDigest
    limits: IntakeLimits
    pace: Pace
    with_user: bool


class FoundModel(Struct, frozen=True):
    """A model that fields have named, now among the job's files."""

    model: Model
    skimmed: Skimmed | None


FindModel = Callable[[JobOrder, str], Awaitable[FoundModel]]
"""Given an order without a file and the key's prefix; raises `Refusal` when there is no such model."""


class Inputs:
    """A whole, valid form; its files are stored under the job's key and are removed again unless `keep` is called."""

    def __init__(self, arrived: Arrived, found: FoundModel) -> None:
        self.order: JobOrder = arrived.order
        self.ref_images: ReferenceSet | None = arrived.ref_images
        self.fingerprint = arrived.fingerprint
        self.model, self.skimmed = found.model, found.skimmed
        self.kept = False

    def keep(self) -> None:
        """Leave the files: the job may exist from now on."""
        self.kept = True

    def release(self) -> None:
        """The job does not exist after all."""
        self.kept = False


class _Files:
    """What has been stored for a job that is to be."""

    def __init__(self) -> None:
        self.stored: list[StoredObject] = []
        self.inputs: Inputs | None = None


@asynccontextmanager
async def _removed_unless_kept(shelf: Shelf) -> AsyncIterator[_Files]:
    files = _Files()
    try:
        yield files
    finally:
        if files.inputs is None or not files.inputs.kept:
            await to_the_end(_remove(shelf, files.stored))


@asynccontextmanager
async def received(
    body: FormBody, *, shelf: Shelf, job_id: str, look_at_lock: LookAtLock, find_model: FindModel
) -> AsyncIterator[Inputs]:
    """Take in one form.

    Args:
        body: the form.
        shelf: where the files go, under `jobs/<job_id>/input/`.
        job_id: the job to be.
        look_at_lock: asked once a user is known, before any file is kept or copied; what it raises ends the intake.
        find_model: asked for the model that fields name instead of a file.

    Raises:
        Refusal: the form cannot be used, says why.
        ClientGone: the client vanished.
        StorageUnavailable: the files cannot be stored.
    """
    prefix = f"jobs/{job_id}/input"
    async with _removed_unless_kept(shelf) as files:
        arrived = await _arrived(body, shelf, prefix, look_at_lock, files.stored)
        if arrived.model is not None:
            found = FoundModel(arrived.model, arrived.skimmed)
        else:
            found = await find_model(arrived.order, prefix)
            files.stored.append(found.model)
        files.inputs = Inputs(arrived, found)
        yield files.inputs


@asynccontextmanager
async def copied(request: JobRequest, order: JobOrder, *, shelf: Shelf, job_id: str) -> AsyncIterator[Inputs]:
    """The inputs of another job, copied by the storage.

    Args:
        request: what was asked of that job.
        order: what is asked now.
        shelf: where the copies go, under `jobs/<job_id>/input/`.
        job_id: the job to be.

    Raises:
        ObjectNotFound: they are gone.
        StorageUnavailable: they cannot be copied.
    """
    prefix = f"jobs/{job_id}/input"
    async with _removed_unless_kept(shelf) as files:
        files.stored.append(file := await shelf.copy(request.model, model_key(prefix)))
        model, ref_images = named(file, request.model.filename), request.ref_images
        if ref_images is not None:
            file = await shelf.copy(ref_images, references_key(prefix), media_type="application/zip")
            files.stored.append(file)
            ref_images = replace(ref_images, object_key=file.object_key)
        arrived = Arrived(order=order, model=model, skimmed=None, ref_images=ref_images, fingerprint=Fingerprint(""))
        files.inputs = Inputs(arrived, FoundModel(model, None))
        yield files.inputs


async def fingerprint(body: FormBody, look_at_lock: LookAtLock) -> Fingerprint:
    """The fingerprint of a form whose files are not kept.

    Raises:
        Refusal, ClientGone: as `received` does.
    """
    return (await _arrived(body, Nowhere(), "fingerprint", look_at_lock, [])).fingerprint


async def _arrived(
    body: FormBody, shelf: Shelf, prefix: str, look_at_lock: LookAtLock, stored: list[StoredObject]
) -> Arrived:
    async with AsyncExitStack() as open_writers:
        form = Form(shelf, prefix, body.limits, look_at_lock, open_writers, Fields(with_user=body.with_user))
        try:
            await _read(form, body)
        except Refusal:
            await form.looked()  # whoever may not post is told so, whatever else is wrong
            raise
        body.digest.verify()
        return await form.complete(stored)


async def _remove(shelf: Shelf, stored: list[StoredObject]) -> None:
    for obj in stored:
        try:
            await shelf.delete(obj.object_key)
        except StorageError as error:
            # The janitor removes what no job refers to; the client's answer does not change.
            log.warning("intake.not_removed", object_key=obj.object_key, error=str(error))


async def _read(form: Form, body: FormBody) -> None:
    segments_max = FIELDS_MAX + 1 + body.limits.images_max_count
    part: Part | None = None
    try:
        with PushMultipartParser(body.boundary, max_segment_count=segments_max) as parser:
            async for chunk in chunks(body.receive, limit_bytes=body.limits.body_max_bytes, pace=body.pace):
                body.digest.update(chunk)
                for event in parser.parse(chunk):
                    if isinstance(event, MultipartSegment):
                        part = await form.part(event)
                    elif part is not None and event is not None:
                        await part.take(event)
                    elif part is not None:
                        await part.end()
                await form.looked()
    except MultipartError as error:
        message = (
            f"The multipart body does not parse: {error.args[0]}."  # further arguments are causes within the parser
        )
        hint = f"Have a library write the form (RFC 7578), in UTF-8 and with at most {segments_max} parts."
        raise Refusal("invalid_multipart", message, details={"hint": hint}) from error
