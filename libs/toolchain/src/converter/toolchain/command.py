"""The command line for files: what is in one, and what it answers to an image.

    converter inspect FILE [--platform 720] [--json]     an ONNX model, a .ref.bie or a .ref.nef
    converter run FILE IMAGE [--json]                    a .ref.bie or .ref.nef, on an image, .npy or .npz

Status 0: done. 1: the file is not what it should be; a line on standard error says why. 2: wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from msgspec import to_builtins

from converter.common import operators
from converter.common.conversion import ConversionRefused
from converter.common.skim import skim
from converter.contracts.job import Platform
from converter.toolchain import container, loader
from converter.toolchain.images import Unreadable
from converter.toolchain.models import spec_record

_ARCHIVE = b"PK\x03\x04"
_BEST = 5

Row = tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command in `arguments` (those of the process by default); returns its status."""
    asked = _parser().parse_args(arguments)
    try:
        found = asked.find(asked)
    except (OSError, ConversionRefused, Unreadable, container.Corrupt) as problem:
        sys.stderr.write(f"converter: {_shown(str(problem))}\n")
        return 1
    if asked.json:
        sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    else:
        sys.stdout.writelines(line + "\n" for line in asked.lay_out(found))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="converter", description="Looks into models and converted artifacts.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    inspect = _command(commands, "inspect", _inspected, _inspection, "say what is in a file")
    inspect.add_argument("file", type=Path, help="an ONNX model, a .ref.bie or a .ref.nef")
    inspect.add_argument(
        "--platform", choices=get_args(Platform), help="the chip to judge an ONNX model's operators by"
    )
    run = _command(commands, "run", _ran, _results, "run an artifact on one image")
    run.add_argument("file", type=Path, help="a .ref.bie or a .ref.nef")
    run.add_argument("image", type=Path, help="an image, or a .npy or .npz file for models that take none")
    return parser


def _command(
    commands: Any,  # noqa: ANN401 - argparse has no public name for this class
    name: str,
    find: Callable[[argparse.Namespace], dict[str, Any]],
    lay_out: Callable[[dict[str, Any]], Iterable[str]],
    summary: str,
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    command.add_argument("--json", action="store_true", help="give JSON instead of tables")
    command.set_defaults(find=find, lay_out=lay_out)
    return command


def _inspected(asked: argparse.Namespace) -> dict[str, Any]:
    with asked.file.open("rb") as file:
        archive = file.read(len(_ARCHIVE)) == _ARCHIVE
    return _artifact(asked.file) if archive else _model(asked.file, asked.platform)


def _model(path: Path, platform: Platform | None) -> dict[str, Any]:
    skimmed = to_builtins(skim(path))
    rows = [{"op": op, "count": count} for op, count in skimmed.pop("operators").items()]
    table = operators.report({row["op"]: row["count"] for row in rows}, platform) if platform else {"operators": rows}
    return {"kind": "ONNX model", "size_bytes": path.stat().st_size, **skimmed, **table}


def _artifact(path: Path) -> dict[str, Any]:
    """Verified as a whole: every digest, and whether it still gives its own answer."""
    artifact = loader.load(path)
    report = artifact.report
    return {
        "kind": artifact.content.media_type,
        "size_bytes": path.stat().st_size,
        "notice": artifact.content.about["notice"],
        "target": artifact.content.about["target"],
        "inputs": [spec_record(spec) for spec in artifact.inputs],
        "outputs": [spec_record(spec) for spec in artifact.outputs],
        "preprocess": artifact.preprocessing.record() if artifact.preprocessing else None,
        "step": report["quantisation"]["step"],
        "snr_db": report["accuracy"]["snr_db"],
        "verdict": report["verdict"],
        "calibration": {key: report["calibration"][key] for key in ("origin", "used", "set_sha256")},
        "warnings": report["warnings"],
        "members": {name: len(content) for name, content in artifact.content.members.items()},
        "self_test": "passed" if artifact.self_test().passed else "failed",
    }


def _ran(asked: argparse.Namespace) -> dict[str, Any]:
    answers = loader.load(asked.file).run_file(asked.image.read_bytes())
    return {"outputs": [_answer(name, array) for name, array in answers.items()]}


def _answer(name: str, array: np.ndarray) -> dict[str, Any]:
    values = np.nan_to_num(array.astype(np.float64).ravel())
    scores = array.ndim <= 2 and array.shape[:-1] in {(), (1,)} and values.size > 1  # noqa: PLR2004 - [C] or [1, C]
    best: Iterable[int] = np.argsort(-values, kind="stable")[:_BEST] if scores else ()
    return {
        "name": name,
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "min": float(values.min(initial=np.inf)) if values.size else None,
        "max": float(values.max(initial=-np.inf)) if values.size else None,
        "mean": float(values.mean()) if values.size else None,
        "best": [{"index": int(index), "value": float(values[index])} for index in best],
    }


def _inspection(found: dict[str, Any]) -> Iterable[str]:
    lists = ("inputs", "outputs", "operators", "warnings", "members")
    facts = [(key, _fact(value)) for key, value in found.items() if key not in {*lists, "source"}]
    yield from _table(facts)
    for name in ("inputs", "outputs"):
        yield ""
        yield from _table([(name, "shape"), *((value["name"], str(list(value["shape"]))) for value in found[name])])
    if "operators" in found:
        yield ""
        yield from _table(
            [tuple(found["operators"][0]), *(tuple(map(str, row.values())) for row in found["operators"])]
        )
    if "members" in found:
        yield ""
        yield from _table([("member", "bytes"), *((name, str(size)) for name, size in found["members"].items())])
    yield from (f"warning: {_shown(warning)}" for warning in found.get("warnings", ()))


def _results(found: dict[str, Any]) -> Iterable[str]:
    for answer in found["outputs"]:
        yield f"{_shown(answer['name'])} {answer['dtype']}{answer['shape']}"
        yield f"  from {answer['min']:.6g} to {answer['max']:.6g}, mean {answer['mean']:.6g}"
        yield from (f"  {best['index']:>6}  {best['value']:.6g}" for best in answer["best"])


def _fact(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return "" if value is None else str(value)


def _table(rows: Sequence[Row]) -> Iterable[str]:
    """Columns as wide as their widest cell, but for the last."""
    shown = [[_shown(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]) - 1)]
    for row in shown:
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()


def _shown(text: str) -> str:
    """`text` without what a terminal would obey: names come from strangers' files."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


if __name__ == "__main__":
    sys.exit(main())
