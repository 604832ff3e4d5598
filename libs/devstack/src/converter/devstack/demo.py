"""Has a model converted by the whole system, as an upstream back-end would, and looks whether it all really happened.

PartFailed    names the part that did not do its own, with the end of its log
FieldWrong    a form field that cannot be sent
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct
from rich.console import Console

from converter.client import AsyncClient, ClientCredentials, ConverterError, Order
from converter.client.errors import JobCancelled, JobFailed, NoToken, WaitTimedOut
from converter.client.resources import Job
from converter.command.problems import Problem, told
from converter.command.stages import STAGES, stage_view
from converter.command.submission import shape
from converter.common.provenance import SUFFIX, VerificationFailed, verify_artifact
from converter.devstack.addresses import FILE_STORE, ISSUER, NATS, S3
from converter.devstack.process import TAIL_LINES, PartFailed
from converter.devstack.screen import Screen
from converter.devstack.services import GATEWAY
from converter.devstack.stack import Stack
from converter.devstack.summary import print_summary

DATA = Path(__file__).with_name("demo_data")
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
MOST_IMAGES = 100
SETTINGS = {"STAGE_TIMEOUT_S": "900"}
FIELDS = {"user_id": "demo", "platform": "720", "model_id": "40001", "version": "0001"}
_TEXTS = ("user_id", "platform", "version", "preprocess", "targets")
_JOB_LIMIT_S = 3000.0


class FieldWrong(RuntimeError):
    """A form field that cannot be sent."""


class Wanted(Struct, frozen=True, kw_only=True):
    """What to convert."""

    order: Order
    left_out: int = 0
    """How many images were left behind, being more than the gateway takes."""


def wanted(model: Path | None, images: Path | None, fields: Mapping[str, str]) -> Wanted:
    """The user's own model, with the images below the directory `images`; without it the digits that come along.

    Raises:
        FileNotFoundError: there is no such model, or no image.
        FieldWrong: there is no such field, or it is not written so.
    """
    if model is None:
        model, images = DATA / "digits_cnn.onnx", images or DATA / "digits_calibration"
    if not model.is_file():
        raise FileNotFoundError(f"no model {model}")
    found = sorted(file for file in images.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES) if images else []
    if images and not found:
        raise FileNotFoundError(f"no PNG, JPEG, BMP or WebP image in {images}")
    return Wanted(order=ordered(model, found[:MOST_IMAGES], FIELDS | dict(fields)), left_out=len(found[MOST_IMAGES:]))


def ordered(model: Path, images: Sequence[Path], fields: Mapping[str, str]) -> Order:
    """An order from the form's fields as text.

    Raises:
        FieldWrong: there is no such field, or it is not written so.
    """
    read: dict[str, Callable[[str], Any]] = {
        **dict.fromkeys(_TEXTS, str),
        "model_id": int,
        "input_shape": lambda text: dict([shape(text)]),
        "quantization": json.loads,
    }
    values: dict[str, Any] = {}
    for name, text in fields.items():
        if name not in read:
            raise FieldWrong(f"there is no field {name!r}; there are {', '.join(read)}")
        try:
            values[name] = read[name](text)
        except (ValueError, Problem) as wrong:
            raise FieldWrong(f"the field {name} is not written so, {text!r}: {wrong}") from wrong
    return Order(model=model, images=images, **values)


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
    env = stack.env
    auth = ClientCredentials(
        token_url=env["TOKEN_URL"],
        client_id=env["CLIENT_ID"],
        client_secret=env["CLIENT_SECRET"],
        audience=env["AUDIENCE"],
    )
    async with AsyncClient(env["GATEWAY_URL"], auth) as client:
        with _blamed(stack, GATEWAY.name):
            job = await _post_and_watch(stack, screen, console, client, what)
        source = max(job.artifacts, key=STAGES.index)
        key = f"demo/{job.artifacts[source].filename}"
        with screen.busy(f"promoting {key}"), _blamed(stack, "promoter"):
            await client.promote(job.job_id, key, source=source)
        screen.say(f"promoted to {env['FILE_STORE_URL']}/files/{key}")
        with _blamed(stack, GATEWAY.name):
            report = await client.report(job.job_id)
    print_summary(console, job, report.stages)
    await _verify(stack, screen, job, source, key)


async def _post_and_watch(stack: Stack, screen: Screen, console: Console, client: AsyncClient, what: Wanted) -> Job:
    """Post the job and show it until it has ended; the job then."""
    order = what.order
    with stage_view(console) as view:
        job = await client.submit(order)
        left_out = f" ({what.left_out} more left out)" if what.left_out else ""
        screen.say(f"posted {order.model.name}, {len(order.images)} reference images{left_out}: job {job.job_id}")
        try:
            return await client.wait(job.job_id, timeout_s=_JOB_LIMIT_S, seen=view.seen)
        except (JobFailed, JobCancelled, WaitTimedOut):
            raise await _not_completed(stack, client, await client.job(job.job_id)) from None


async def _not_completed(stack: Stack, client: AsyncClient, job: Job) -> PartFailed:
    if not job.error or not job.error.stage:
        why = job.error.message if job.error else f"the job is {job.status} after {_JOB_LIMIT_S:g} s"
        return _failed(stack, f"stage-{job.stage}" if job.stage else GATEWAY.name, f"did not finish: {why}")
    error, stage = job.error, job.error.stage
    why = f"failed the job with {error.code}: {error.message}\n  hint: {error.hint}"
    written = (await client.log(job.job_id, stage=stage)).splitlines()[-TAIL_LINES:]
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
    public_key = Path(stack.env["PROVENANCE_PUBLIC_KEY_FILE"])
    try:
        verified = await asyncio.to_thread(verify_artifact, file, stack.stored_file(key + SUFFIX), public_key)
    except (OSError, VerificationFailed) as error:
        raise _failed(stack, "promoter", f"left no statement that holds: {error}") from error
    command = f"{Path(sys.executable).with_name('converter')} verify {file} --key {public_key}"
    screen.say(f"the statement beside them is signed by the key {verified.keyid[:16]}…: {command}")


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
    except ConverterError as error:
        told_by = told(error)
        why = "\n".join(told_by.lines) if told_by else str(error)
        raise _failed(stack, ISSUER if isinstance(error, NoToken) else part, why) from error


def _failed(stack: Stack, part: str, why: str) -> PartFailed:
    return PartFailed(part, why, stack.log_tail(part))
