"""The commands that give what a job made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import to_builtins

from converter.command.connection import ANY, Connection
from converter.command.findings import findings
from converter.command.output import PLAIN, Format
from converter.command.showing import OUTPUT, fetched
from converter.command.stages import Stage

HERE = Path()


def report(job_id: str, /, *, html: Path | None = None, output: Format = PLAIN, connection: Connection = ANY) -> None:
    """Show what a conversion found out about the model: the figures that people ask for first; JSON has all of them.

    Args:
        job_id: Which.
        html: Write it as one HTML page to this file.
        output: How to say it.
        connection: Which service.
    """
    with connection.client() as client:
        if html is None:
            found = client.report(job_id)
            output.give(to_builtins(found), findings(found.stages) or ["no stage has finished"])
            return
        page = client.report_page(job_id)
    html.write_text(page, encoding="utf-8")
    output.give({"job_id": job_id, "file": str(html)}, [str(html)])


def download(
    job_id: str,
    /,
    *,
    source: Stage | None = None,
    to: Annotated[Path, OUTPUT] = HERE,
    output: Format = PLAIN,
    connection: Connection = ANY,
) -> None:
    """Fetch what a job made, and the signed statement of how; files get their names once their digests are right.

    Args:
        job_id: Which.
        source: What this stage made; by default the last one.
        to: A directory, or the file's name; here unless given. DIRECTORY/ is made where it is missing.
        output: How to say it.
        connection: Which service.
    """
    with connection.client() as client:
        found = fetched(client, client.job(job_id), source, to)
    output.give({"job_id": job_id, **found}, found.values())


def promote(
    job_id: str,
    key: str,
    /,
    *,
    source: Stage | None = None,
    wait: bool = True,
    output: Format = PLAIN,
    connection: Connection = ANY,
) -> None:
    """Have what a job made put into the file store.

    Args:
        job_id: Which.
        key: Where it goes, such as models/alice/yolo.nef.
        source: What this stage made; by default the last one.
        wait: Until the file store has it, unless --no-wait.
        output: How to say it.
        connection: Which service.
    """
    with connection.client() as client:
        done = client.promote(job_id, key, source=source, wait=wait)
    output.give(to_builtins(done), [f"{done.source} to {done.target_object_key}: {done.status}"])
