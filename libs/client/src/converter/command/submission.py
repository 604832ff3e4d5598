"""The command that has a model converted."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from msgspec import to_builtins

from converter.client import Client, Order
from converter.client.resources import Verdict
from converter.command.accounts import unfinished_uploads
from converter.command.codes import ExitCode
from converter.command.connection import ANY, Connection
from converter.command.output import PLAIN, Flag, Format, facts, say, shown, table
from converter.command.problems import Problem
from converter.command.showing import OUTPUT, fetched, job_json, job_lines, transfer, waited
from converter.command.stages import Stage

_IMAGES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})


def submit(  # noqa: PLR0913 - these are the form's fields
    model: Path,
    /,
    *images: Path,
    platform: Literal["520", "530", "630", "720", "730"],
    model_id: int,
    version: str = "0001",
    user: Annotated[str, Parameter(env_var="CONVERTER_USER")] = "",
    input_shape: tuple[str, ...] = (),
    preprocess: str | None = None,
    quantization: str | None = None,
    targets: Stage | None = None,
    dry_run: Flag = False,
    wait: bool = True,
    to: Annotated[Path | None, OUTPUT] = None,
    idempotency_key: str | None = None,
    output: Format = PLAIN,
    connection: Connection = ANY,
) -> None:
    """Have a model converted, and wait for it.

    Args:
        model: An .onnx file.
        images: Reference images, directories of them, one .zip of them, or .npy/.npz files.
        platform: The chip.
        model_id: Names the model on the chip, 1 to 65535; those up to 32767 are the vendor's.
        version: Four hex digits; 0001 unless given.
        user: Whose job it is; by default who is logged in on this machine.
        input_shape: A static shape, name:1,3,224,224; the name may be left out for a single input. Repeatable.
        preprocess: kneron (the default), tensorflow, yolo, pytorch, caffe, none, or mean and scale as JSON.
        quantization: Analysis keywords as JSON.
        targets: The last stage to run; nef unless given.
        dry_run: Only check the form and the model; no job is made.
        wait: Until the job has ended, unless --no-wait.
        to: Download what was made into this directory, or as this file; DIRECTORY/ is made where it is missing.
        idempotency_key: The same key gives the same job for a day, however often this is run.
        output: How to say it.
        connection: Which service.
    """
    if to is not None and not wait:
        raise Problem("--output needs the job to end: leave --no-wait out", ExitCode.USAGE)
    order = Order(
        model=model,
        images=found_images(images),
        user_id=user or getpass.getuser(),
        platform=platform,
        model_id=model_id,
        version=version,
        input_shape=dict(map(shape, input_shape)),
        preprocess=preprocess,
        quantization=_json_object(quantization) if quantization is not None else None,
        targets=targets,
    )
    with connection.client() as client:
        if dry_run:
            _judge(client, order, output)
            return
        with transfer(model.name) as sent:
            job = client.submit(order, idempotency_key=idempotency_key, sent=sent, unfinished_in=unfinished_uploads())
        say(f"posted {model.name} with {len(order.images)} reference images: job {job.job_id}")
        if wait:
            job = waited(client, job.job_id, None)
        found, lines = job_json(job), list(job_lines(job))
        if to is not None:
            files = fetched(client, job, None, to)
            found |= files
            lines += ["", *(f"downloaded {file}" for file in files.values())]
        output.give(found, lines)


def found_images(given: Iterable[Path]) -> list[Path]:
    """The files that are named, and the images below the directories that are.

    Raises:
        Problem: there is no such thing, or no image in a directory.
    """
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            below = sorted(file for file in path.rglob("*") if file.suffix.lower() in _IMAGES)
            if not below:
                raise Problem(f"no PNG, JPEG, BMP or WebP image in {path}", ExitCode.USAGE)
            found += below
        elif path.is_file():
            found.append(path)
        else:
            raise Problem(f"{path}: no such file or directory", ExitCode.USAGE)
    return found


def shape(text: str) -> tuple[str, list[int]]:
    """An input's name (empty when left out) and its shape, from `name:1,3,224,224`.

    Raises:
        Problem: it is not written so.
    """
    name, _, sizes = text.rpartition(":")
    try:
        return name, [int(size) for size in sizes.split(",")]
    except ValueError:
        raise Problem(f"--input-shape {text}: write name:1,3,224,224", ExitCode.USAGE) from None


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Problem(f"--quantization is not JSON: {error}", ExitCode.USAGE) from None
    if not isinstance(found, dict):
        raise Problem("--quantization is no JSON object", ExitCode.USAGE)
    return found


def _judge(client: Client, order: Order, output: Format) -> None:
    with transfer(order.model.name) as sent:
        verdict = client.dry_run(order, sent=sent)
    output.give(to_builtins(verdict), _verdict(verdict))
    if not verdict.valid:
        raise Problem("the job would fail", answered=True)


def _verdict(verdict: Verdict) -> Iterable[str]:
    model = verdict.model or {}
    yield from facts({name: value for name, value in model.items() if not isinstance(value, dict | list)})
    if operators := model.get("operators"):
        yield ""
        yield from table([("operator", "count"), *((name, str(count)) for name, count in operators.items())])
    for problem in verdict.problems:
        yield ""
        yield f"{problem.code}: {shown(problem.message)}"
        yield f"hint: {shown(problem.hint)}"
    yield from (f"warning: {shown(warning)}" for warning in verdict.warnings)
    yield "it would be taken" if verdict.valid else "it would fail"
