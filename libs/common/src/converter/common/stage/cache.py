"""What a client had converted before: an equal order is answered with a copy of what came of the first.

The cache holds no artifacts. An entry names a job; what that job made lies among its own objects, and its own event
tells where. So an entry lives exactly as long as its job: whoever deletes a job has deleted what others could get of
it, and nobody else's job suffers, because a hit is a copy.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from converter.common.bus import Bus, BusRefused, EventBusUnavailable
from converter.common.eventlog import JobLog
from converter.common.stage.policy import StageConverter, StageSpec
from converter.common.storage import ArtifactStore, StorageError
from converter.common.topology import STAGE_CACHE, bucket_key, bucket_stream
from converter.common.users import client_token
from converter.contracts.facts import StageCompleted
from converter.contracts.job import JobRecord, Sha256, StoredObject, Toolchain, timestamp

log = structlog.get_logger()

TEXT = "text/plain; charset=utf-8"
_MISSES = (StorageError, EventBusUnavailable, BusRefused, msgspec.MsgspecError)


class Maker(Struct, frozen=True):
    """Who would convert."""

    toolchain: Toolchain
    release: Sha256
    """Of this software."""


class Reused(Struct, frozen=True):
    """What an equal order gave before: the fact of the job that made it, and that job's id."""

    job_id: str
    fact: StageCompleted


class StageCache:
    """Finds and notes what a stage has made.

    Args:
        bus: keeps the entries.
        job_log: tells what became of the jobs that they name.
        store: keeps what the jobs made.
        spec: the stage.
        converter: how it is done here.
        maker: by whom; without one nothing is found, as nobody knows what would come of the work.
    """

    def __init__(
        self,
        bus: Bus,
        job_log: JobLog,
        store: ArtifactStore,
        *,
        spec: StageSpec,
        converter: StageConverter,
        maker: Maker | None,
    ) -> None:
        self._bus, self._log, self._store = bus, job_log, store
        self._spec, self._converter, self._maker = spec, converter, maker

    async def reuse(
        self, job: JobRecord, attempt: int, worker: str, prefix: str
    ) -> tuple[StageCompleted, Reused] | None:
        """What the attempt comes to without a converter, and where it is from; copied to keys below `prefix`.

        Whatever goes wrong is a miss: the work can always be done.
        """
        try:
            found = await self._find(job)
            return (await self._copied(found, attempt, worker, prefix), found) if found else None
        except _MISSES as error:
            log.warning("cache.missed", stage=self._spec.stage, error=str(error))
            return None

    async def note(self, job: JobRecord) -> None:
        """Name `job`, as it was before the stage, as the one that has done this work last."""
        if self._maker:
            try:
                await self._bus.store(self._subject(job, self._maker), job.job_id.encode())
            except _MISSES as error:
                log.warning("cache.not_noted", stage=self._spec.stage, error=str(error))

    async def _find(self, job: JobRecord) -> Reused | None:
        if self._maker is None:
            return None
        entry = await self._bus.last(bucket_stream(STAGE_CACHE), self._subject(job, self._maker))
        if entry is None:
            return None
        job_id = entry.data.decode(errors="replace")
        # A deleted job gives nothing any more, even while its objects wait to be removed.
        state = await self._log.read(job_id)
        if not isinstance(state, JobRecord) or state.request.client_id != job.request.client_id:
            return None
        fact = await self._log.completion(job_id, self._spec.stage)
        return Reused(job_id, fact) if fact else None

    async def _copied(self, found: Reused, attempt: int, worker: str, prefix: str) -> StageCompleted:
        made = found.fact
        artifact = await self._store.copy(made.artifact, f"{prefix}/artifact", media_type=made.artifact.media_type)
        await self._store.verify(artifact)
        report = await self._store.copy(made.report, f"{prefix}/report", media_type="application/json")
        noted = await self._noted_log(found, f"{prefix}/log")
        return replace(
            made,
            at=timestamp(),
            attempt=attempt,
            worker=worker,
            artifact=replace(made.artifact, object_key=artifact.object_key, created_at=timestamp()),
            report=report,
            log=noted,
            cached=True,
            provenance=None,
        )

    async def _noted_log(self, found: Reused, key: str) -> StoredObject:
        """The log of the work itself, after a line that says whose it is."""
        async with self._store.writer(key, media_type=TEXT) as writer:
            await writer.write(f"Nothing was converted: job {found.job_id} had made the same. Its log:\n".encode())
            if found.fact.log:
                async with self._store.open(found.fact.log.object_key) as download:
                    async for chunk in download.chunks:
                        await writer.write(chunk)
            return await writer.commit()

    def _subject(self, job: JobRecord, maker: Maker) -> str:
        client = client_token(job.request.client_id)
        key = cache_key(self._spec, self._converter, job, maker)
        return bucket_key(STAGE_CACHE, f"{self._spec.stage}.{client}.{key}")


def cache_key(spec: StageSpec, converter: StageConverter, job: JobRecord, maker: Maker) -> Sha256:
    """The digest of all that decides what the converter makes: all that it is given, and who it is."""
    request = job.request
    decisive = {
        "client_id": request.client_id,
        "stage": spec.stage,
        "filename": request.model.filename,
        "platform": request.platform,
        "model_id": request.model_id,
        "version": request.version,
        "options": converter.given(request.options),
        "inputs": {role: stored.sha256 for role, stored in spec.objects(job).items()},
        "made_by": job.toolchain,
        "maker": maker,
    }
    return hashlib.sha256(msgspec.json.encode(decisive, order="sorted")).hexdigest()


async def this_maker(toolchain: Toolchain | None) -> Maker | None:
    """This software with `toolchain`. Every file of it counts: what has been changed may convert otherwise."""
    if toolchain is None:
        return None
    package = find_spec(__name__.partition(".")[0])
    roots = map(Path, (package.submodule_search_locations or ()) if package else ())
    return Maker(toolchain, await asyncio.to_thread(release, list(roots)))


def release(roots: Iterable[Path]) -> Sha256:
    """The digest of every file below `roots`, names included, wherever they are installed."""
    digest = hashlib.sha256()
    for root in sorted(roots):
        for path in sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"):
            content = path.read_bytes()
            digest.update(b"%s %d " % (str(path.relative_to(root)).encode(), len(content)))
            digest.update(content)
    return digest.hexdigest()
