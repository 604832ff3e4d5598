"""The two clients, the same but for `await`: `AsyncClient` for an event loop, `Client` for everywhere else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from converter.client import following, jobs, receiving, sending
from converter.client.errors import InsecureUrl, Misconfigured
from converter.client.following import Event
from converter.client.gateway import Gateway
from converter.client.receiving import File, Link
from converter.client.resources import Health, Job, LogLine, Order, Promotion, Report, Verdict
from converter.client.tokens import Bearer, ClientCredentials, GivenToken, IssuedTokens
from converter.client.uploading import Sent, unheard
from converter.client.wire import AsyncWire, BlockingWire, Wire, completed, iterated

Auth = ClientCredentials | Bearer
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
TIMEOUT_S, PATIENCE_S = 60.0, 60.0


def _unseen(_: Event) -> None:
    """Ignore what happens."""


class AsyncClient:
    """A client of the gateway, on an event loop.

        async with AsyncClient("https://converter.example", ClientCredentials(…)) as client:
            job = await client.submit(Order(model=Path("model.onnx"), …))

    Every method may raise any kind of `ConverterError`; a method's documentation names those that are particular to it.
    A request that is safe to repeat is tried again for up to `patience_s`, and `Retry-After` is obeyed. The client may
    be made outside of the event loop that uses it.

    Args:
        url: the gateway's public face.
        auth: what the client proves itself with.
        timeout_s: how long the network may be silent.
        patience_s: for how long requests may fail in a row before the failure is raised.
        allow_http: send secrets to another machine in the clear, where the network itself is trusted.

    Raises:
        InsecureUrl: the gateway or the issuer is neither https nor on this machine.
        Misconfigured: an address is malformed.
    """

    def __init__(
        self,
        url: str,
        auth: Auth,
        *,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        allow_http: bool = False,
    ) -> None:
        _require_secure(url, auth, allow_http=allow_http)
        # A proxy of the environment has no way to this machine's own addresses.
        self._wire = AsyncWire(timeout_s, trust_env=_host(url) not in _LOOPBACK)
        self._gateway = _gateway(self._wire, url, auth, patience_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every connection."""
        await self._wire.close()

    async def submit(
        self,
        order: Order,
        *,
        idempotency_key: str | None = None,
        sent: Sent = unheard,
        unfinished_in: Path | None = None,
    ) -> Job:
        """Have a model converted; in constant memory, whatever its size.

        A model that the gateway has already is not sent again. A large one is continued where a connection broke.

        Args:
            order: what to convert.
            idempotency_key: the same key gives the same job for a day; by default one of this call's own.
            sent: called with the bytes sent so far, and with all there are.
            unfinished_in: a directory that remembers unfinished uploads, so that a later process continues them.

        Raises:
            UserHasActiveJob: one at a time.
            InvalidRequest: `fields` says what is wrong.
            OSError: a file cannot be read.
        """
        return await sending.submit(self._gateway, order, idempotency_key, sent, unfinished_in)

    async def dry_run(self, order: Order, *, sent: Sent = unheard) -> Verdict:
        """Check an order without making a job of it; nothing is kept.

        Raises:
            InvalidRequest: `fields` says what is wrong.
            OSError: a file cannot be read.
        """
        return await sending.dry_run(self._gateway, order, sent)

    async def job(self, job_id: str) -> Job:
        """The job as it is now.

        Raises:
            NotFound: there is none, or it is another client's.
        """
        return await jobs.job(self._gateway, job_id)

    def jobs(self, user_id: str, *, status: str | None = None) -> AsyncGenerator[Job, None]:
        """A user's jobs, newest first; pages are fetched as they are reached."""
        return jobs.jobs(self._gateway, user_id, status)

    def events(self, job_id: str, *, after: int = 0) -> AsyncGenerator[Event, None]:
        """What has happened to a job since its revision `after`, then what happens, until it has ended.

        A connection that breaks is made again, and nothing is missed or given twice.
        """
        return following.events(self._gateway, job_id, after)

    async def wait(
        self, job_id: str, *, timeout_s: float | None = None, seen: Callable[[Event], None] = _unseen
    ) -> Job:
        """Wait until the job is completed. Where its events cannot be followed, it is polled instead.

        Args:
            job_id: which.
            timeout_s: how long to wait; without it, as long as it takes.
            seen: called with every event meanwhile.

        Raises:
            JobFailed: its `job.error` says why.
            JobCancelled: somebody ended it.
            JobDeleted: somebody removed it.
            WaitTimedOut: it has not ended yet, and goes on.
        """
        return await following.wait(self._gateway, job_id, timeout_s, seen)

    async def log(self, job_id: str, *, stage: str | None = None) -> str:
        """What the toolchain has written so far, of one stage or of all."""
        return await jobs.log(self._gateway, job_id, stage)

    def follow_log(self, job_id: str, *, stage: str | None = None) -> AsyncGenerator[LogLine, None]:
        """Every line that the toolchain writes, until the job has ended."""
        return following.log_lines(self._gateway, job_id, stage)

    async def report(self, job_id: str) -> Report:
        """What the stages that have finished found out about the model."""
        return await jobs.report(self._gateway, job_id)

    async def report_page(self, job_id: str) -> str:
        """The report as one HTML page that needs nothing else."""
        return await jobs.report_page(self._gateway, job_id)

    async def download_link(self, job_id: str, *, source: str | None = None, file: File = "artifact") -> Link:
        """A link, for a while and without a token, to what the stage `source` made (by default the last one)."""
        return await receiving.link(self._gateway, job_id, source, file)

    async def download(
        self,
        job_id: str,
        to: Path,
        *,
        source: str | None = None,
        file: File = "artifact",
        received: Sent = unheard,
    ) -> Path:
        """Download what the stage `source` made (by default the last one) into the directory `to`, or as the file `to`.

        With `file="provenance"` download the signed statement of how it was made, where there is one. A broken download
        is continued, and the file gets its name only once its digest is known to be the job's.

        Raises:
            DigestMismatch: it has another digest; nothing is left of it.
            Conflict: that stage has made nothing.
            OSError: it cannot be written.
        """
        return await receiving.download(self._gateway, job_id, to, source, file, received)

    async def promote(
        self, job_id: str, target_object_key: str, *, source: str | None = None, wait: bool = True
    ) -> Promotion:
        """Have what `source` made (by default the last stage) put into the file store under `target_object_key`.

        Raises:
            PromotionFailed: the upload failed; only with `wait`.
            Conflict: the job is not completed, or another artifact is on its way to the key.
        """
        return await jobs.promote(self._gateway, job_id, target_object_key, source, wait=wait)

    async def cancel(self, job_id: str) -> Job:
        """End an active job; its record and its log stay.

        Raises:
            Conflict: it has ended already.
        """
        return await jobs.cancel(self._gateway, job_id)

    async def delete(self, job_id: str) -> Job | None:
        """Cancel an active job, or delete one that has ended, with all that it made.

        Returns:
            The job, cancelled or ended meanwhile; None once it is deleted.
        """
        return await jobs.delete(self._gateway, job_id)

    async def health(self) -> Health:
        """How the gateway and all that it needs are."""
        return await jobs.health(self._gateway)


class Client:
    """A client of the gateway that blocks. Its methods are those of `AsyncClient`, whose documentation holds here.

    with Client("https://converter.example", ClientCredentials(…)) as client:
        job = client.submit(Order(model=Path("model.onnx"), …))
    """

    def __init__(
        self,
        url: str,
        auth: Auth,
        *,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        allow_http: bool = False,
    ) -> None:
        _require_secure(url, auth, allow_http=allow_http)
        self._wire = BlockingWire(timeout_s, trust_env=_host(url) not in _LOOPBACK)
        self._gateway = _gateway(self._wire, url, auth, patience_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """As `AsyncClient.close`."""
        completed(self._wire.close())

    def submit(
        self,
        order: Order,
        *,
        idempotency_key: str | None = None,
        sent: Sent = unheard,
        unfinished_in: Path | None = None,
    ) -> Job:
        """As `AsyncClient.submit`."""
        return completed(sending.submit(self._gateway, order, idempotency_key, sent, unfinished_in))

    def dry_run(self, order: Order, *, sent: Sent = unheard) -> Verdict:
        """As `AsyncClient.dry_run`."""
        return completed(sending.dry_run(self._gateway, order, sent))

    def job(self, job_id: str) -> Job:
        """As `AsyncClient.job`."""
        return completed(jobs.job(self._gateway, job_id))

    def jobs(self, user_id: str, *, status: str | None = None) -> Generator[Job, None, None]:
        """As `AsyncClient.jobs`."""
        return iterated(jobs.jobs(self._gateway, user_id, status))

    def events(self, job_id: str, *, after: int = 0) -> Generator[Event, None, None]:
        """As `AsyncClient.events`."""
        return iterated(following.events(self._gateway, job_id, after))

    def wait(self, job_id: str, *, timeout_s: float | None = None, seen: Callable[[Event], None] = _unseen) -> Job:
        """As `AsyncClient.wait`."""
        return completed(following.wait(self._gateway, job_id, timeout_s, seen))

    def log(self, job_id: str, *, stage: str | None = None) -> str:
        """As `AsyncClient.log`."""
        return completed(jobs.log(self._gateway, job_id, stage))

    def follow_log(self, job_id: str, *, stage: str | None = None) -> Generator[LogLine, None, None]:
        """As `AsyncClient.follow_log`."""
        return iterated(following.log_lines(self._gateway, job_id, stage))

    def report(self, job_id: str) -> Report:
        """As `AsyncClient.report`."""
        return completed(jobs.report(self._gateway, job_id))

    def report_page(self, job_id: str) -> str:
        """As `AsyncClient.report_page`."""
        return completed(jobs.report_page(self._gateway, job_id))

    def download_link(self, job_id: str, *, source: str | None = None, file: File = "artifact") -> Link:
        """As `AsyncClient.download_link`."""
        return completed(receiving.link(self._gateway, job_id, source, file))

    def download(
        self,
        job_id: str,
        to: Path,
        *,
        source: str | None = None,
        file: File = "artifact",
        received: Sent = unheard,
    ) -> Path:
        """As `AsyncClient.download`."""
        return completed(receiving.download(self._gateway, job_id, to, source, file, received))

    def promote(
        self, job_id: str, target_object_key: str, *, source: str | None = None, wait: bool = True
    ) -> Promotion:
        """As `AsyncClient.promote`."""
        return completed(jobs.promote(self._gateway, job_id, target_object_key, source, wait=wait))

    def cancel(self, job_id: str) -> Job:
        """As `AsyncClient.cancel`."""
        return completed(jobs.cancel(self._gateway, job_id))

    def delete(self, job_id: str) -> Job | None:
        """As `AsyncClient.delete`."""
        return completed(jobs.delete(self._gateway, job_id))

    def health(self) -> Health:
        """As `AsyncClient.health`."""
        return completed(jobs.health(self._gateway))


def _gateway(wire: Wire, url: str, auth: Auth, patience_s: float) -> Gateway:
    tokens = GivenToken(auth) if isinstance(auth, Bearer) else IssuedTokens(wire, auth)
    return Gateway(wire, url, tokens, patience_s)


def _require_secure(url: str, auth: Auth, *, allow_http: bool) -> None:
    """Look at the addresses that secrets are sent to.

    Raises:
        InsecureUrl, Misconfigured: as the clients do.
    """
    for each in (url, *([auth.token_url] if isinstance(auth, ClientCredentials) else [])):
        if not each.startswith(("https://", "http://")) or not _host(each):
            hint = "Write it whole: https://converter.example"
            raise Misconfigured(f"{each!r} is no address of a service", hint=hint)
        if not (each.startswith("https://") or allow_http or _host(each) in _LOOPBACK):
            raise InsecureUrl(each)


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
