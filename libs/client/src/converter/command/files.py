"""The commands that look into files on this machine; nothing is sent anywhere."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from converter.command.output import PLAIN, Format, facts, shown, table
from converter.command.problems import Problem
from converter.common.conversion import ConversionRefused
from converter.contracts.job import Platform
from converter.kneron import nef_file
from converter.toolchain import inspection, running
from converter.toolchain.container import Corrupt
from converter.toolchain.images import Unreadable

_WRONG_FILE = (ConversionRefused, Corrupt, Unreadable, nef_file.NefInvalid)
_LISTS = ("inputs", "outputs", "operators", "warnings", "members", "models", "firmware_table")


def inspect(file: Path, /, *, platform: Platform | None = None, output: Format = PLAIN) -> None:
    """Say what is in a model or an artifact; whatever has digests is verified.

    Args:
        file: An ONNX model, a .ref.bie, a .ref.nef or a vendor's .nef.
        platform: The chip to judge an ONNX model's operators by.
        output: How to say it.
    """
    try:
        found = _described(file, platform)
    except _WRONG_FILE as wrong:
        raise Problem(f"{file}: {wrong}") from wrong
    output.give(found, _inspection(found))


def _described(file: Path, platform: Platform | None) -> dict[str, Any]:
    """By its content: a name only says what a damaged or encrypted file was to be."""
    try:
        return inspection.describe(file, platform)
    except ConversionRefused:
        content = file.read_bytes()
        if file.suffix == ".nef" or nef_file.looks_like(content):
            return nef_file.describe(content)
        if file.suffix == ".bie":
            raise Problem(
                f"{file}: a BIE of the vendor's is encrypted; nothing in it can be read or verified"
            ) from None
        raise


def run(artifact: Path, image: Path, /, *, output: Format = PLAIN) -> None:
    """Run a .ref.bie or .ref.nef on one image.

    Args:
        artifact: A .ref.bie or a .ref.nef.
        image: An image, or a .npy or .npz file for models that take none.
        output: How to say it.
    """
    try:
        found = running.run(artifact, image)
    except _WRONG_FILE as wrong:
        raise Problem(f"{image if isinstance(wrong, Unreadable) else artifact}: {wrong}") from wrong
    output.give(found, _answers(found))


def _inspection(found: dict[str, Any]) -> Iterable[str]:
    yield from facts({key: value for key, value in found.items() if key not in {*_LISTS, "source"}})
    for name in ("inputs", "outputs"):
        if name in found:
            yield ""
            yield from table([(name, "shape"), *((value["name"], str(list(value["shape"]))) for value in found[name])])
    for name in ("operators", "models", "firmware_table"):
        if found.get(name):
            yield ""
            yield from table([tuple(found[name][0]), *(tuple(map(str, row.values())) for row in found[name])])
    if "members" in found:
        yield ""
        yield from table([("member", "bytes"), *((name, str(size)) for name, size in found["members"].items())])
    yield from (f"warning: {shown(warning)}" for warning in found.get("warnings", ()))


def _answers(found: dict[str, Any]) -> Iterable[str]:
    for answer in found["outputs"]:
        yield f"{shown(answer['name'])} {answer['dtype']}{answer['shape']}"
        yield f"  from {answer['min']:.6g} to {answer['max']:.6g}, mean {answer['mean']:.6g}"
        yield from (f"  {best['index']:>6}  {best['value']:.6g}" for best in answer["best"])
