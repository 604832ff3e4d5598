"""Goes through everything that is kept, one thing at a time, and removes what is past its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from msgspec import Struct
from msgspec.structs import asdict

from converter.common.bus import BusRefused, EventBusUnavailable
from converter.common.eventlog import JobLog
from converter.common.failpoint import failpoint
from converter.common.identifiers import made_at
from converter.common.lifecycle import Deleted, State
from converter.common.storage import ArtifactStore, StorageError
from converter.common.users import ActiveJobs, UserJobs
from converter.contracts.facts import AnyFact, JobDeleted
from converter.contracts.job import JobRecord
from converter.gateway.janitor import rules
from converter.gateway.uploads import Uploads

log = structlog.get_logger()

JOBS = "jobs/"
PROBES = "probe/"


class Limits(Struct, frozen=True, kw_only=True):
    """How long things may stay."""

    upload: timedelta
    """How long the body of one request may take to arrive."""
    creation: timedelta
    """How long after its id was made a job may still be created."""
    probe: timedelta = timedelta(hours=1)
    """A probe takes its object away within seconds, unless its process is killed."""


class Swept(Struct, kw_only=True):
    """What one sweep has removed."""

    expired_jobs: int = 0
    never_created_jobs: int = 0
    index_entries: int = 0
    objects_of_deleted_jobs: int = 0
    objects_of_lost_attempts: int = 0
    resumable_uploads: int = 0
    open_uploads: int = 0
    probes: int = 0
    left: int = 0
    """Things that could not be removed, each for a reason of its own; the next sweep tries again."""


class Janitor:
    """Sweeps: first jobs, by the index and by what is stored, then what belongs to none.

    Args:
        store: whose objects.
        job_log: what they belong to.
        active_jobs: where deleted jobs may still be pointed to.
        user_jobs: where they may still be listed.
        uploads: the resumable ones, which know their own time.
        limits: of everything else.
    """

    def __init__(
        self,
        *,
        store: ArtifactStore,
        job_log: JobLog,
        active_jobs: ActiveJobs,
        user_jobs: UserJobs,
        uploads: Uploads,
        limits: Limits,
    ) -> None:
        self._store, self._log, self._uploads, self._limits = store, job_log, uploads, limits
        self._active_jobs, self._user_jobs = active_jobs, user_jobs

    async def keep_swept(self, every_s: float) -> None:
        """Sweep again and again; the next sweep finds what this one had to leave."""
        while True:
            await self.sweep()
            await asyncio.sleep(every_s)

    async def sweep(self) -> Swept:
        """Go through everything once, as far as the servers answer."""
        began, swept, whole = time.monotonic(), Swept(), True
        steps = (
            self._listed_jobs,
            self._stored_jobs,
            self._resumable_uploads,
            self._open_uploads,
            self._probes,
        )
        for step in steps:
            try:
                await step(swept)
            except (StorageError, EventBusUnavailable, BusRefused) as error:
                # A server is away. The next steps may need only the other one.
                log.warning("janitor.interrupted", step=step.__name__, error=str(error), **asdict(swept))
                whole = False
            except Exception:
                # Whatever is wrong with one step must not keep the others for ever.
                log.exception("janitor.failed", step=step.__name__)
        duration_ms = round((time.monotonic() - began) * 1000)
        if whole:
            log.info("janitor.swept", duration_ms=duration_ms, **asdict(swept))
        return swept

    @asynccontextmanager
    async def _apart(self, thing: str, swept: Swept) -> AsyncIterator[None]:
        """Contain what goes wrong with `thing`, so that the others are swept all the same, unless a server is away.

        Raises:
            EventBusUnavailable, StorageUnavailable: it is.
        """
        try:
            yield
        except EventBusUnavailable:
            raise
        except (StorageError, BusRefused) as error:
            if isinstance(error, StorageError):
                await self._storage_answers()
            # A storage may refuse to delete one object; a full event log refuses an event, and others need none.
            log.warning("janitor.left", thing=thing, error=str(error))
            swept.left += 1
        except Exception:
            log.exception("janitor.failed", thing=thing)
            swept.left += 1

    async def _storage_answers(self) -> None:
        """Raises StorageUnavailable where it does not."""
        async for _ in self._store.list(PROBES):
            return

    async def _listed_jobs(self, swept: Swept) -> None:
        """Every job that its user is shown: those past their time end here, and leave index and lock last."""
        async for entry in self._user_jobs.every():
            async with self._apart(entry.job_id, swept):
                if isinstance(await self._attended(entry.job_id, swept), Deleted):
                    await self._active_jobs.forget(entry.user, entry.job_id)
                    await self._user_jobs.forget(entry)
                    swept.index_entries += 1

    async def _stored_jobs(self, swept: Swept) -> None:
        """Every job that has objects, also one that was never listed, and of those that stay what does not count."""
        seen, state = "", None
        async for info in self._store.list(JOBS):
            job_id = info.object_key.split("/")[1]
            if job_id != seen:  # keys of one job mostly come together; to look twice does no harm
                seen, state = job_id, None
                async with self._apart(job_id, swept):
                    state = await self._attended(job_id, swept)
            if isinstance(state, JobRecord) and not state.active and rules.lost(state, info.object_key):
                async with self._apart(info.object_key, swept):
                    await self._store.delete(info.object_key)
                    swept.objects_of_lost_attempts += 1

    async def _attended(self, job_id: str, swept: Swept) -> State:
        """End one job if that is due; its state. One that is deleted has no objects any more."""
        try:
            made_at(job_id)
        except ValueError:  # put there by somebody else
            return None
        state = await self._ended(job_id, swept)
        if isinstance(state, Deleted):
            swept.objects_of_deleted_jobs += await self._store.delete_prefix(f"{JOBS}{job_id}/")
        return state

    async def _ended(self, job_id: str, swept: Swept) -> State:
        """The job's state, after what has to be published before anything of it may go."""
        fact: AnyFact | None = None

        def decide(state: State) -> AnyFact | None:
            nonlocal fact
            fact = rules.ending(job_id, state, now=datetime.now(UTC), creation=self._limits.creation)
            return fact

        state = await self._log.append(job_id, decide)
        while fact is not None and not isinstance(state, Deleted):
            state = await self._log.append(job_id, decide)
        if isinstance(fact, JobDeleted):
            failpoint("before", "remove")
            log.info("job.deleted", job_id=job_id, reason=fact.reason)
            swept.expired_jobs += fact.reason == "expired"
            swept.never_created_jobs += fact.reason == "superseded"
        return state

    async def _resumable_uploads(self, swept: Swept) -> None:
        swept.resumable_uploads += await self._uploads.sweep(partial(self._apart, swept=swept))

    async def _open_uploads(self, swept: Swept) -> None:
        """What writers that were killed had begun, in the storage's own sense of an upload."""
        swept.open_uploads += await self._store.abort_stale_uploads(
            self._limits.upload, spared=self._of_active_job, apart=partial(self._apart, swept=swept)
        )

    async def _of_active_job(self, object_key: str) -> bool:
        match object_key.split("/"):
            case ["jobs", job_id, *_]:
                state = await self._log.read(job_id)
                return isinstance(state, JobRecord) and state.active
        return False

    async def _probes(self, swept: Swept) -> None:
        oldest = datetime.now(UTC) - self._limits.probe
        async with self._apart(PROBES, swept):
            swept.probes += await self._store.delete_prefix(PROBES, lambda info: info.modified_at <= oldest)
