"""What people see of a job, and of what is under way; the latter on standard error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cyclopts import Parameter, Token
from msgspec import to_builtins
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from converter.client import Client
from converter.client.resources import Job
from converter.client.uploading import Sent, unheard
from converter.command.codes import ExitCode
from converter.command.output import facts, shown, table
from converter.command.problems import Problem
from converter.command.stages import STAGES, size, stage_view


def console() -> Console:
    """Where progress is shown."""
    return Console(stderr=True, highlight=False)


@contextmanager
def transfer(what: str) -> Iterator[Sent]:
    """A bar of bytes, on a terminal; in a pipe nothing."""
    screen = console()
    if not screen.is_terminal:
        yield unheard
        return
    columns = (TextColumn("  {task.description}", markup=False), BarColumn(32), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=screen) as progress:
        task = progress.add_task(what, total=None)
        yield lambda sent, total: progress.update(task, completed=sent, total=total)


def waited(client: Client, job_id: str, timeout_s: float | None) -> Job:
    """The job once it is completed, shown until then.

    Raises:
        Problem: it was interrupted; the job goes on.
        ConverterError: as `Client.wait`.
    """
    try:
        with stage_view(console()) as view:
            return client.wait(job_id, timeout_s=timeout_s, seen=view.seen)
    except KeyboardInterrupt:
        raise Problem(
            f"interrupted; the job goes on\n  converter watch {job_id}\n  converter cancel {job_id}",
            ExitCode.INTERRUPTED,
        ) from None


def _place(_: object, given: Sequence[Token]) -> Path:
    """The path as it is written: one that ends in a slash is a directory, made at once, before a job is."""
    [token] = given
    place = Path(token.value)
    if token.value.endswith("/"):
        place.mkdir(parents=True, exist_ok=True)
    return place


OUTPUT = Parameter(name=("--output", "-o"), converter=_place)
"""Where to put what is fetched."""


def fetched(client: Client, job: Job, source: str | None, to: Path) -> dict[str, str]:
    """Download what `source` made, and beside it its signed statement, where there is one; the files' names."""
    with transfer("downloading") as received:
        file = client.download(job.job_id, to, source=source, received=received)
    found = {"file": str(file)}
    if job.artifacts[source or job.options.targets].provenance:
        # The name under which `converter verify` looks for it.
        beside = file.with_name(f"{file.name}.intoto.jsonl")
        found["statement"] = str(client.download(job.job_id, beside, source=source, file="provenance"))
    return found


def job_json(job: Job) -> dict[str, Any]:
    """A job as `--json` gives it: the fields of the HTTP API."""
    found: dict[str, Any] = to_builtins(job)
    return found


def job_lines(job: Job) -> Iterable[str]:
    """A job, for a person."""
    yield from facts(
        {
            "job": job.job_id,
            "status": f"{job.status}{f', {job.stage}' if job.stage and not job.over else ''}",
            "progress": f"{job.progress:.0%}{f', {job.activity}' if job.activity else ''}",
            "queue": f"place {job.queue_position}" if job.queue_position else None,
            "user": job.user_id,
            "model": f"{job.model.filename}, {size(job.model.size_bytes)}, sha256 {job.model.sha256}",
            "for": f"platform {job.platform}, model id {job.model_id}, version {job.version}",
            "images": job.ref_images_count,
            "toolchain": f"{job.toolchain.name} {job.toolchain.version}" if job.toolchain else None,
            "created": job.created_at.isoformat(timespec="seconds"),
            "kept until": job.expires_at.isoformat(timespec="seconds") if job.expires_at else None,
        }
    )
    if job.artifacts:
        rows = [
            (name, made.filename, size(made.size_bytes), made.sha256)
            for name in STAGES
            if (made := job.artifacts.get(name))
        ]
        yield ""
        yield from table([("stage", "file", "size", "sha256"), *rows])
    if job.promotions:
        asked = [(each.source, each.status, each.target_object_key) for each in job.promotions]
        yield ""
        yield from table([("promoted", "status", "key"), *asked])
    if job.error:
        known = {name: getattr(job.error, name) for name in ("stage", "node", "op", "evidence", "hint")}
        yield ""
        yield f"{job.error.code}: {shown(job.error.message)}"
        yield from facts({name: value for name, value in known.items() if value})
    yield from (f"warning: {shown(warning)}" for warning in job.warnings)
