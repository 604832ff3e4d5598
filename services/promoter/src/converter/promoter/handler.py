"""The promotion of an artifact: read the state, upload, append how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import msgspec
import structlog
from structlog.contextvars import bound_contextvars

from converter.common.bus import Delivery
from converter.common.consumer import Rejected, Released, Transient
from converter.common.eventlog import JobLog, event_in
from converter.common.failpoint import failpoint
from converter.common.lifecycle import State
from converter.common.provenance import SUFFIX
from converter.common.storage import ArtifactStore, StorageError, StorageUnavailable
from converter.common.workers import Presence
from converter.contracts.facts import PromotionCompleted, PromotionFailed, PromotionRequested
from converter.contracts.job import TARGET_OBJECT_KEY_MAX_BYTES, Artifact, JobRecord, Promotion, moment, timestamp
from converter.contracts.subjects import job_of
from converter.promoter.file_store import FileGatewayUnavailable, FileStore, NotPromoted
from converter.promoter.upload import NotWanted, Upload

log = structlog.get_logger()

Outcome = PromotionCompleted | PromotionFailed
STORAGE_UNAVAILABLE = "storage_unavailable"
"""The code of a promotion whose artifact is gone from storage, or is not what was recorded."""
NAME_MAX_BYTES = 255
"""How long the last part of a key may be, on most file systems."""


class Promotions:
    """Handles `promotion.requested`.

    Args:
        job_log: where the state is read and the outcome goes.
        store: where artifacts are.
        file_store: where they go.
        presence: shows what is being worked on.
        draining: once it is set, an upload under way is broken off for another worker to begin anew.
    """

    def __init__(
        self,
        job_log: JobLog,
        store: ArtifactStore,
        file_store: FileStore,
        *,
        presence: Presence,
        draining: asyncio.Event,
    ) -> None:
        self._job_log, self._store, self._file_store = job_log, store, file_store
        self._presence, self._draining = presence, draining

    async def handle(self, delivery: Delivery) -> None:
        """Promote what the message asks for.

        Raises:
            Rejected: it asks for nothing that this build understands.
            Transient: storage is away.
            Released: the worker is draining.
            EventBusUnavailable: the state could not be read, or the outcome is not known to be stored.
        """
        try:
            job_id, fact = job_of(delivery.subject), event_in(delivery).fact
        except (ValueError, msgspec.MsgspecError) as error:
            raise Rejected(f"no event: {error}") from error
        if not isinstance(fact, PromotionRequested):
            raise Rejected(f"{type(fact).__name__} asks for no promotion")
        with self._presence.working_on(job_id), bound_contextvars(job_id=job_id, promotion_id=fact.promotion_id):
            await self.promote(job_id, fact.promotion_id)

    async def promote(self, job_id: str, promotion_id: str) -> None:
        """Bring the promotion to its end, unless it has one.

        Raises:
            Transient, Released, EventBusUnavailable: see `handle`.
        """
        failpoint("before", "state")
        job = await self._job_log.read(job_id)
        failpoint("after", "state")
        promotion = _pending(job, promotion_id)
        if not isinstance(job, JobRecord) or promotion is None:
            return
        with bound_contextvars(client_id=job.request.client_id, user_id=job.request.user_id):
            try:
                outcome = await self._outcome(job, promotion)
            except NotWanted:
                log.info("promotion.ended_meanwhile", target=promotion.target_object_key)
                return
            failpoint("before", "publish")
            # The gateway may have closed it meanwhile, at its deadline: then it stays closed.
            await self._job_log.append(job_id, lambda state: outcome if _pending(state, promotion_id) else None)
            failpoint("after", "publish")
            if isinstance(outcome, PromotionFailed):
                log.warning("promotion.failed", code=outcome.code, error=outcome.message)
            else:
                log.info("promotion.completed", source=promotion.source, target=promotion.target_object_key)

    async def _outcome(self, job: JobRecord, promotion: Promotion) -> Outcome:
        failed = partial(PromotionFailed, promotion_id=promotion.promotion_id)
        try:
            await self._upload(job, promotion)
        except NotPromoted as failure:
            return failed(at=timestamp(), code=failure.code, message=failure.why)
        except StorageUnavailable as error:
            raise Transient(str(error)) from error
        except StorageError as error:
            log.error("promotion.artifact_unreadable", error=str(error))
            return failed(at=timestamp(), code=STORAGE_UNAVAILABLE, message="the artifact cannot be read from storage")
        return PromotionCompleted(promotion_id=promotion.promotion_id, at=timestamp())

    async def _upload(self, job: JobRecord, promotion: Promotion) -> None:
        uploads = [
            Upload(
                target_object_key=key,
                artifact=artifact,
                open=partial(self._store.open, artifact.object_key),
                deadline=moment(promotion.deadline),
                wanted=partial(self._still_pending, job.job_id, promotion.promotion_id),
            )
            for key, artifact in _to_upload(job, promotion)
        ]
        failpoint("before", "store")
        uploading = asyncio.create_task(self._put(uploads))
        draining = asyncio.create_task(self._draining.wait())
        try:
            await asyncio.wait({uploading, draining}, return_when=asyncio.FIRST_COMPLETED)
            if not uploading.done():
                raise Released
            await uploading
        finally:
            uploading.cancel()
            draining.cancel()
            await asyncio.gather(uploading, draining, return_exceptions=True)
        failpoint("after", "store")

    async def _put(self, uploads: Sequence[Upload]) -> None:
        for upload in uploads:
            await self._file_store.put(upload)

    async def _still_pending(self, job_id: str, promotion_id: str) -> bool:
        return _pending(await self._job_log.read(job_id), promotion_id) is not None


def _to_upload(job: JobRecord, promotion: Promotion) -> list[tuple[str, Artifact]]:
    """Keys of the file store and what to put there, in this order.

    The statement goes before its artifact: whoever finds the artifact finds its statement too, and a promotion that
    fails in between has not put the file there that the client was refused.
    """
    key = promotion.target_object_key
    artifact, statement = job.artifact(promotion.source), job.provenance(promotion.source)
    if artifact is None:
        raise FileGatewayUnavailable(f"the job has no {promotion.source} artifact", again=False)
    if statement is None:
        return [(key, artifact)]
    beside = key + SUFFIX
    name = beside.rpartition("/")[2]
    if len(beside.encode()) > TARGET_OBJECT_KEY_MAX_BYTES or len(name.encode()) > NAME_MAX_BYTES:
        log.warning("promotion.statement_left_out", target=key, why="its key would be too long")
        return [(key, artifact)]
    return [(beside, statement), (key, artifact)]


def _pending(state: State, promotion_id: str) -> Promotion | None:
    if not isinstance(state, JobRecord):
        return None
    for promotion in state.promotions:
        if promotion.promotion_id == promotion_id and promotion.status == "pending":
            return promotion
    return None
