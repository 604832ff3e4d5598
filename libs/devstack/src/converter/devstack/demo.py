"""Has a model converted by the whole system, as an upstream back-end would, and looks whether it all really happened.

PartFailed    names the part that did not do its own, with the end of its log
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from msgspec import Struct
from rich.console import Console

from converter.contracts.job import STAGES
from converter.devstack.addresses import FILE_STORE, ISSUER, NATS, S3, SCOPES
from converter.devstack.process import TAIL_LINES, PartFailed
from converter.devstack.screen import Screen
from converter.devstack.services import GATEWAY
from converter.devstack.stack import Stack
from converter.devstack.summary import print_summary
from converter.devstack.upstream import Job, Refused, Upstream, fetch_token

DATA = Path(__file__).with_name("demo_data")
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
MOST_IMAGES = 100
SETTINGS = {"STAGE_TIMEOUT_S": "900", "API_V1_RATE_LIMIT_MAX": "100000"}
"""The demo looks at its job more often than the rate limit of an upstream would let it."""
FIELDS = {"user_id": "demo", "platform": "720", "model_id": "40001", "version": "0001"}
_LOOK_EVERY_S = 0.2
_JOB_LIMIT_S = 3000.0


class Wanted(Struct, frozen=True, kw_only=True):
    """What to convert: a model, its reference images, and the form's fields."""

    model: Path
    images: tuple[Path, ...]
    fields: dict[str, str]
    left_out: int = 0
    """How many images were left behind, being more than the gateway takes."""


def wanted(model: Path | None, images: Path | None, fields: Mapping[str, str]) -> Wanted:
    """The user's own model, with the images below the directory `images`; without it the digits that come along.

    Raises:
        FileNotFoundError: there is no such model, or no image.
    """
    if model is None:
        model, images = DATA / "digits_cnn.onnx", images or DATA / "digits_calibration"
    if not model.is_file():
        raise FileNotFoundError(f"no model {model}")
    found = sorted(file for file in images.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES) if images else []
    if images and not found:
        raise FileNotFoundError(f"no PNG, JPEG, BMP or WebP image in {images}")
    return Wanted(
        model=model,
        images=tuple(found[:MOST_IMAGES]),
        fields=FIELDS | dict(fields),
        left_out=len(found[MOST_IMAGES:]),
    )


async def demo(console: Console, directory: Path, what: Wanted) -> None:
    """Bring everything up below `directory`, convert, promote, verify, take everything down.

    Raises:
        PartFailed: anything of this did not happen.
    """
    run = directory / datetime.now(UTC).strftime(f"%Y%m%d-%H%M%S-{os.getpid()}")
    screen = Screen(console)
    began = time.monotonic()
    async with AsyncExitStack() as up:
        with screen.busy("starting nats-server, SeaweedFS, issuer, file store and the five services"):
            stack = await up.enter_async_context(Stack(run, settings=SETTINGS, tell=screen.warn))
        screen.say(f"{len(stack.pids)} processes serve after {time.monotonic() - began:.1f} s, logs in {run / 'logs'}")
        await _convert(stack, screen, console, what)
        pids, env = stack.pids, stack.env
        with screen.busy("taking everything down"):
            await up.aclose()
    await _all_gone(pids, env)
    for server in (NATS, S3, ISSUER):
        await asyncio.to_thread(shutil.rmtree, run / server)
    screen.say(f"everything is down: {len(pids)} processes, {time.monotonic() - began:.1f} s in all")


async def _convert(stack: Stack, screen: Screen, console: Console, what: Wanted) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        with _blamed(stack, ISSUER):
            token = await fetch_token(http, stack.env, scope=" ".join(SCOPES))
        screen.say(f"{stack.env['CLIENT_ID']} has a token from {stack.env['TOKEN_URL']}")
        upstream = Upstream(http, stack.env["GATEWAY_URL"], token)
        with _blamed(stack, GATEWAY.name):
            job = await _post_and_watch(stack, screen, upstream, what)
        source = max(job.artifacts, key=STAGES.index)
        key = f"demo/{job.artifacts[source].filename}"
        with screen.busy(f"promoting {key}"), _blamed(stack, "promoter"):
            await upstream.promote(job.job_id, source=source, key=key)
        screen.say(f"promoted to {stack.env['FILE_STORE_URL']}/files/{key}")
        with _blamed(stack, GATEWAY.name):
            reports = await upstream.reports(job.job_id)
    print_summary(console, job, reports)
    await _verify(stack, screen, job, source, key)


async def _post_and_watch(stack: Stack, screen: Screen, upstream: Upstream, what: Wanted) -> Job:
    """Post the job and show it until it has ended; the job then."""
    with screen.bars() as bars:
        job = await upstream.post(what.model, what.images, what.fields)
        left_out = f" ({what.left_out} more left out)" if what.left_out else ""
        screen.say(f"posted {what.model.name}, {len(what.images)} reference images{left_out}: job {job.job_id}")
        give_up_at = time.monotonic() + _JOB_LIMIT_S
        while not job.over and time.monotonic() < give_up_at:
            await asyncio.sleep(_LOOK_EVERY_S)
            job = await upstream.job(job.job_id)
            bars.show(job)
    if job.status != "completed":
        raise await _not_completed(stack, upstream, job)
    return job


async def _not_completed(stack: Stack, upstream: Upstream, job: Job) -> PartFailed:
    if not job.error or not job.error.stage:
        why = job.error.message if job.error else f"the job is {job.status} after {_JOB_LIMIT_S:g} s"
        return _failed(stack, f"stage-{job.stage}" if job.stage else GATEWAY.name, f"did not finish: {why}")
    error, stage = job.error, job.error.stage
    why = f"failed the job with {error.code}: {error.message}\n  hint: {error.hint}"
    written = (await upstream.log(job.job_id, stage)).splitlines()[-TAIL_LINES:]
    toolchain = "\n".join(["\n  the end of what the toolchain wrote:", *written]) if written else ""
    return _failed(stack, f"stage-{stage}", why + toolchain)


async def _verify(stack: Stack, screen: Screen, job: Job, source: str, key: str) -> None:
    """Look at the bytes that lie in the file store."""
    file, expected = stack.stored_file(key), job.artifacts[source]

    def look() -> tuple[int, str]:
        with file.open("rb") as opened:
            return file.stat().st_size, hashlib.file_digest(opened, "sha256").hexdigest()

    try:
        found = await asyncio.to_thread(look)
    except OSError as error:
        raise _failed(stack, FILE_STORE, f"does not hold what was promoted: {error}") from error
    if found != (expected.size_bytes, expected.sha256):
        raise _failed(
            stack,
            FILE_STORE,
            f"holds other bytes than were made: {found[0]} bytes with sha256 {found[1]}, "
            f"not {expected.size_bytes} with {expected.sha256}",
        )
    screen.say(f"the promoted bytes have the artifact's digest, sha256 {found[1]}")
    screen.say(f"they lie in {file}")


async def _all_gone(pids: Mapping[str, int], env: Mapping[str, str]) -> None:
    """Raise PartFailed for a process that still runs, or a port that is still served."""
    for name, pid in pids.items():
        if Path(f"/proc/{pid}").exists():
            raise PartFailed(name, f"still runs as process {pid}", "")
    for name, address in env.items():
        port = urlsplit(address).port if "://" in address else None
        if port is not None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
            writer.close()
            raise PartFailed(name, f"is still served at {address}", "")


@contextmanager
def _blamed(stack: Stack, part: str) -> Iterator[None]:
    try:
        yield
    except Refused as refused:
        raise _failed(stack, part, refused.why) from refused


def _failed(stack: Stack, part: str, why: str) -> PartFailed:
    return PartFailed(part, why, stack.log_tail(part))
