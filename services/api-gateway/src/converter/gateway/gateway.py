"""What the handlers work with: everything a request needs beyond itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from msgspec import Struct

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.idempotency import IdempotencyKeys
from converter.common.storage import ArtifactStore
from converter.common.users import ActiveJobs, UserJobs
from converter.gateway.endpoints.links import DownloadLinks
from converter.gateway.endpoints.paging import Cursors
from converter.gateway.http.body import Pace
from converter.gateway.http.errors import Refusal
from converter.gateway.intake.form import IntakeLimits
from converter.gateway.intake.found_model import NamedModels
from converter.gateway.live import Live
from converter.gateway.queues import Queues
from converter.gateway.read_copy import ReadCopy
from converter.gateway.sent_models import SentModels
from converter.gateway.uploads import Uploads

STREAM_RETRY_AFTER_S = 5


class UploadSlots:
    """Bounds the uploads that are under way at once.

    Args:
        count: how many there may be.
        retry_after_s: what a client that finds none is told.
    """

    def __init__(self, count: int, retry_after_s: int) -> None:
        self._free, self.retry_after_s = count, retry_after_s

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold one for as long as the context lasts.

        Raises:
            Refusal: `service_busy`.
        """
        if not self._free:
            raise Refusal("service_busy", headers={"Retry-After": str(self.retry_after_s)})
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


class StreamSlots:
    """Bounds the streams of events that each client has open at once.

    Args:
        each: how many a client may have.
    """

    def __init__(self, each: int) -> None:
        self._each, self._open = each, Counter[str]()

    @contextmanager
    def taken(self, client_id: str) -> Iterator[None]:
        """Hold one for as long as the context lasts.

        Raises:
            Refusal: `service_busy`.
        """
        if self._open[client_id] >= self._each:
            message = f"The client has {self._each} streams open, which are as many as it may."
            details = {"limit": self._each, "hint": "Close one, or follow fewer jobs at once."}
            raise Refusal("service_busy", message, details=details, headers={"Retry-After": str(STREAM_RETRY_AFTER_S)})
        self._open[client_id] += 1
        try:
            yield
        finally:
            self._open[client_id] -= 1
            if not self._open[client_id]:
                del self._open[client_id]


class Gateway(Struct, frozen=True, kw_only=True):
    """The dependencies of the public API's handlers."""

    bus: Bus
    store: ArtifactStore
    job_log: JobLog
    read_copy: ReadCopy
    active_jobs: ActiveJobs
    user_jobs: UserJobs
    live: Live
    queues: Queues
    cursors: Cursors
    links: DownloadLinks
    idempotency_keys: IdempotencyKeys
    sent_models: SentModels
    named_models: NamedModels
    uploads: Uploads
    upload_slots: UploadSlots
    stream_slots: StreamSlots
    limits: IntakeLimits
    pace: Pace
    job_deadline: timedelta
    artifact_ttl: timedelta
    promote_timeout: timedelta
    public_base_url: str
    """Stands before the path of download links; empty where clients know the API's address themselves."""
