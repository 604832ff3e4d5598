"""The model of a job whose form names one instead of carrying it: a finished upload, or one that was sent before."""

from __future__ import annotations

from contextlib import aclosing

from converter.common.skim import Skimmed
from converter.common.storage import ArtifactStore
from converter.gateway.http.errors import FieldError, bad_fields
from converter.gateway.intake.form import check_digest, model_key, named
from converter.gateway.intake.inputs import FindModel, FoundModel
from converter.gateway.intake.model_part import ModelPart
from converter.gateway.intake.options import JobOrder
from converter.gateway.intake.shelf import Nowhere, Shelf
from converter.gateway.sent_models import SentModels
from converter.gateway.uploads import UploadNotFound, Uploads


class NamedModels:
    """Where such models come from.

    Args:
        store: keeps them.
        uploads: the resumable ones.
        sent: the index of those that came before.
        limit_bytes: how large one may be.
    """

    def __init__(self, store: ArtifactStore, uploads: Uploads, sent: SentModels, limit_bytes: int) -> None:
        self._store, self._uploads, self._sent, self._limit_bytes = store, uploads, sent, limit_bytes

    def finder(self, client_id: str, shelf: Shelf, *, look_into_known: bool = False) -> FindModel:
        """Finds the client's models and puts them on `shelf`.

        Args:
            client_id: whose.
            shelf: where they go.
            look_into_known: skim also those that were skimmed when they came.
        """

        async def find(order: JobOrder, prefix: str) -> FoundModel:
            if order.model_upload_id is not None:
                return await self._uploaded(client_id, order, shelf, prefix)
            model = await self._sent.copied(client_id, order.model_sha256 or "", shelf, prefix)
            return FoundModel(model, await self._skimmed(client_id, order) if look_into_known else None)

        return find

    async def release(self, client_id: str, order: JobOrder) -> None:
        """The upload that `order` names has become a job's model."""
        if order.model_upload_id is not None:
            await self._uploads.remove(await self._uploads.find(client_id, order.model_upload_id))

    async def _uploaded(self, client_id: str, order: JobOrder, shelf: Shelf, prefix: str) -> FoundModel:
        try:
            upload = await self._uploads.find(client_id, order.model_upload_id or "")
        except UploadNotFound:
            raise bad_fields([FieldError("model_upload_id", "names no upload")]) from None
        arrived = await self._uploads.offset(upload)
        if arrived < upload.size_bytes:
            message = f"names an unfinished upload: {arrived} of {upload.size_bytes} bytes have arrived"
            raise bad_fields([FieldError("model_upload_id", message)])
        async with shelf.writer(model_key(prefix)) as writer, aclosing(self._uploads.content(upload)) as content:
            part = ModelPart(upload.filename, writer, self._limit_bytes)
            async for chunk in content:
                await part.take(chunk)
            await part.end()
            file = await writer.commit()
        try:
            check_digest(order, file)
        except BaseException:
            await shelf.delete(file.object_key)
            raise
        return FoundModel(named(file, upload.filename), part.skimmed)

    async def _skimmed(self, client_id: str, order: JobOrder) -> Skimmed | None:
        model = await self._sent.find(client_id, order.model_sha256 or "")
        async with Nowhere().writer(model.object_key) as writer, self._store.open(model.object_key) as download:
            part = ModelPart(model.filename, writer, self._limit_bytes)
            async for chunk in download.chunks:
                await part.take(chunk)
            await part.end()
        return part.skimmed
