"""Models that a client has sent before and may name again by their digest (`model_sha256` without a file).

An entry is written when a job is created and never removed: whether the model still exists, its object tells.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec

from converter.common.bus import Bus
from converter.common.entries import entry_in
from converter.common.storage import ArtifactStore, ObjectNotFound
from converter.common.topology import MODELS, bucket_key, bucket_stream
from converter.common.users import client_token
from converter.contracts.job import Model
from converter.gateway.http.errors import Refusal, bad_part
from converter.gateway.intake.form import model_key, named
from converter.gateway.intake.shelf import Shelf

LOOKED_AT_MAX = 50
"""Jobs with the same model; the newest live longest."""


class SentModels:
    """The index, by client and digest.

    Args:
        bus: keeps it.
        store: keeps the models.
    """

    def __init__(self, bus: Bus, store: ArtifactStore) -> None:
        self._bus, self._store = bus, store

    async def add(self, client_id: str, job_id: str, model: Model) -> None:
        """Note that the client has sent `model` with the job."""
        await self._bus.store(_subject(client_id, model.sha256, job_id), msgspec.json.encode(model))

    async def find(self, client_id: str, sha256: str) -> Model:
        """The client's newest model of this digest.

        Raises:
            Refusal: the client has sent none, or it is gone; nobody else's is ever looked at.
        """
        for subject in await self._newest_first(client_id, sha256):
            if model := entry_in(await self._bus.last(bucket_stream(MODELS), subject), Model):
                with suppress(ObjectNotFound):
                    await self._store.stat(model.object_key)
                    return model
        raise _unknown()

    async def copied(self, client_id: str, sha256: str, shelf: Shelf, prefix: str) -> Model:
        """A copy of it, made by the storage, among the files of another job.

        Raises:
            Refusal: as `find` does.
        """
        model = await self.find(client_id, sha256)
        try:
            return named(await shelf.copy(model, model_key(prefix)), model.filename)
        except ObjectNotFound:
            raise _unknown() from None

    async def _newest_first(self, client_id: str, sha256: str) -> list[str]:
        subjects = await self._bus.subjects(bucket_stream(MODELS), _subject(client_id, sha256, "*"))
        return sorted(subjects, reverse=True)[:LOOKED_AT_MAX]


def _unknown() -> Refusal:
    return bad_part("model", "missing, and none of this model_sha256 is here; send the file")


def _subject(client_id: str, sha256: str, job_id: str) -> str:
    return bucket_key(MODELS, f"{client_token(client_id)}.{sha256}.{job_id}")
