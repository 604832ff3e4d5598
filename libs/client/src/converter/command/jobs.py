"""The commands that look after jobs."""

from __future__ import annotations

import sys
from itertools import islice
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from converter.command.connection import ANY, Connection
from converter.command.output import PLAIN, Format, shown, table
from converter.command.showing import job_json, job_lines, waited
from converter.command.stages import Stage


def list_jobs(
    *,
    user: Annotated[str, Parameter(env_var="CONVERTER_USER")],
    status: Literal["queued", "running", "completed", "failed", "cancelled"] | None = None,
    limit: Annotated[int, Parameter(validator=Number(gte=1))] = 20,
    output: Format = PLAIN,
    connection: Connection = ANY,
) -> None:
    """List a user's jobs, newest first.

    Args:
        user: Whose jobs.
        status: Only jobs with this status.
        limit: How many at most; 20 unless given.
        output: How to say it.
        connection: Which service.
    """
    with connection.client() as client:
        found = list(islice(client.jobs(user, status=status), limit))
    rows = [
        (
            job.job_id,
            job.status,
            f"{job.progress:.0%}",
            job.platform,
            f"{job.created_at:%Y-%m-%d %H:%M:%S}",
            job.model.filename,
        )
        for job in found
    ]
    heading = ("job", "status", "done", "chip", "created (UTC)", "model")
    output.give([job_json(job) for job in found], table([heading, *rows]) if rows else ["no jobs"])


def show(job_id: str, /, *, output: Format = PLAIN, connection: Connection = ANY) -> None:
    """Show a job.

    Args:
        job_id: Which.
        output: How to say it.
        connection: Which service.
    """
    with connection.client() as client:
        job = client.job(job_id)
    output.give(job_json(job), job_lines(job))


def watch(
    job_id: str, /, *, timeout: float | None = None, output: Format = PLAIN, connection: Connection = ANY
) -> None:
    """Follow a job until it has ended; one that failed is exit code 1.

    Args:
        job_id: Which.
        timeout: How many seconds to wait.
        output: How to say it.
        connection: Which service.
    """
    with connection.client() as client:
        job = waited(client, job_id, timeout)
    output.give(job_json(job), job_lines(job))


def logs(
    job_id: str,
    /,
    *,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"), negative=())] = False,
    stage: Stage | None = None,
    output: Format = PLAIN,
    connection: Connection = ANY,
) -> None:
    """Show what the toolchain wrote.

    Args:
        job_id: Whose.
        follow: Stay for what it writes until the job has ended.
        stage: Only this stage's.
        output: How to say it; with --follow, JSON is an object a line.
        connection: Which service.
    """
    with connection.client() as client:
        if not follow:
            text = client.log(job_id, stage=stage)
            output.give({"job_id": job_id, "log": text}, map(shown, text.splitlines()))
            return
        for line in client.follow_log(job_id, stage=stage):
            told = msgspec.json.encode(line).decode() if output.json else f"{line.stage:5} {shown(line.line)}"
            sys.stdout.write(told + "\n")
            sys.stdout.flush()


def cancel(job_id: str, /, *, output: Format = PLAIN, connection: Connection = ANY) -> None:
    """End an active job; its record and its log stay.

    Args:
        job_id: Which.
        output: How to say it.
        connection: Which service.
    """
    with connection.client() as client:
        job = client.cancel(job_id)
    output.give(job_json(job), [f"{job.job_id} is {job.status}"])


def delete(job_id: str, /, *, output: Format = PLAIN, connection: Connection = ANY) -> None:
    """Cancel an active job, or delete one that has ended, with all that it made.

    Args:
        job_id: Which.
        output: How to say it.
        connection: Which service.
    """
    with connection.client() as client:
        job = client.delete(job_id)
    done = f"was active and is {job.status}; its record stays" if job else "is deleted"
    output.give({"job_id": job_id, "status": job.status if job else "deleted"}, [f"{shown(job_id)} {done}"])
