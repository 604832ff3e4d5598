"""Converts models that people really use, each stage in its jail, and prints a table of what it took and gave.

    uv pip install --no-deps --target DIR rapidocr-onnxruntime==1.4.4 silero-vad==6.2.3 magika==1.0.3
    python benchmarks/models.py --packages DIR --write docs/models.md

The packages only lend their .onnx files; none of their code runs. Without --packages only the models that come with the
demo and with the onnx package are converted.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import string
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx.backend.test
from msgspec import Struct
from msgspec.structs import replace
from PIL import Image, ImageDraw, ImageFont

from converter.common.conversion import ConversionTask
from converter.common.isolation import Converted, Isolation, Limits, Outcome, Refused, failure
from converter.contracts.job import STAGES, Options, Preprocess, Stage
from converter.devstack.demo import DATA
from converter.toolchain.accuracy import GOOD_DB

CONVERTERS = {stage: f"converter.stage_{stage}.reference" for stage in STAGES}
LIMITS = Limits(timeout_s=600, memory_mb=6000)
LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"
INPUT = {Stage.ONNX: "model", Stage.BIE: "onnx", Stage.NEF: "bie"}
BEGIN, END = "<!-- begin: benchmarks/models.py -->", "<!-- end -->"
COLUMNS = [
    "model",
    "data",
    "from, KB",
    "nodes",
    "onnx, s",
    "bie, s",
    "nef, s",
    "peak, MB",
    ".ref.nef, KB",
    "SNR, dB",
    "verdict",
]


class Case(Struct, frozen=True, kw_only=True):
    """One model, and the reference set that it is calibrated with (none: made-up data)."""

    name: str
    path: Path
    data: str
    images: bytes | None = None
    options: Options = Options()


def cases(packages: Path | None) -> Iterator[Case]:
    """Those whose files are there."""
    pictures = [(path.name, path.read_bytes()) for path in sorted((DATA / "digits_calibration").glob("*.png"))]
    yield Case(name="digits (demo)", path=DATA / "digits_cnn.onnx", data="100 digits", images=_archive(pictures))
    for path in sorted(LIGHT.glob("*.onnx")):
        yield Case(name=f"onnx {path.stem}", path=path, data="made up")
    if packages is None:
        return
    ocr = packages / "rapidocr_onnxruntime" / "models"
    for name, file, height, width in (
        ("PP-OCRv4 text detector", "ch_PP-OCRv4_det_infer.onnx", 320, 320),
        ("PP-OCRv4 text recogniser", "ch_PP-OCRv4_rec_infer.onnx", 48, 320),
        ("PP-OCR direction classifier", "ch_ppocr_mobile_v2.0_cls_infer.onnx", 48, 192),
    ):
        options = Options(input_shape={"": (1, 3, height, width)}, preprocess=Preprocess(preset="tensorflow"))
        words = _archive(_words(40, width, height))
        yield Case(name=name, path=ocr / file, data="40 printed lines", images=words, options=options)
    yield Case(name="magika 3.3", path=packages / "magika/models/standard_v3_3/model.onnx", data="made up")
    for file in ("silero_vad.onnx", "silero_vad_op18_ifless.onnx"):
        yield Case(name=file.removesuffix(".onnx"), path=packages / "silero_vad/data" / file, data="made up")


def _archive(files: list[tuple[str, bytes]]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)
    return written.getvalue()


def _words(count: int, width: int, height: int) -> list[tuple[str, bytes]]:
    """Pictures of printed words, the same ones each time."""
    drawn = random.Random(1)  # noqa: S311 - pictures, not secrets
    font = ImageFont.load_default(size=30)
    files = []
    for index in range(count):
        image = Image.new("RGB", (width, height), tuple(drawn.randrange(180, 256) for _ in range(3)))
        for top in range(4, height - 30, 60):
            text = "".join(drawn.choices(string.ascii_letters + string.digits + "    ", k=drawn.randrange(6, 18)))
            ImageDraw.Draw(image).text((drawn.randrange(4, 30), top), text, (drawn.randrange(90),) * 3, font)
        content = io.BytesIO()
        image.save(content, "PNG")
        files.append((f"{index}.png", content.getvalue()))
    return files


class Workbench:
    """Runs cases in directories of their own below `root`."""

    def __init__(self, isolation: Isolation, root: Path) -> None:
        self._isolation, self._root = isolation, root

    async def rows(self, case: Case) -> list[list[str]]:
        """The case's row; where 8 bits give less than 20 dB, one more of what a ladder makes of it."""
        row, snr_db = await self._row(case)
        if snr_db is None or snr_db >= GOOD_DB:
            return [row]
        keywords = {"ladder": "auto"}
        climbing = replace(case, name=f"{case.name}, ladder", options=replace(case.options, quantization=keywords))
        return [row, (await self._row(climbing))[0]]

    async def _row(self, case: Case) -> tuple[list[str], float | None]:
        done: dict[Stage, Converted] = {}
        source: Path = case.path
        for stage in STAGES:
            outcome = await self._run(stage, case, source)
            if not isinstance(outcome, Converted):
                return _failed_row(case, done, stage, outcome), None
            done[stage] = outcome
            source = outcome.conversion.artifact
        accuracy = done[Stage.BIE].conversion.report["accuracy"]
        exact = all(output["simulated"]["exact"] for output in accuracy["outputs"])
        step = done[Stage.BIE].conversion.report["quantisation"]["step"]
        snr = "exact" if exact else f"{accuracy['snr_db']}"
        row = [
            *_begun_row(case, done),
            f"{source.stat().st_size / 1024:.0f}",
            snr,
            f"{accuracy['verdict']} ({step})",
        ]
        return row, None if exact else accuracy["snr_db"]

    async def _run(self, stage: Stage, case: Case, source: Path) -> Outcome:
        workdir = Path(tempfile.mkdtemp(dir=self._root))
        inputs = {INPUT[stage]: workdir / "input"}
        inputs[INPUT[stage]].write_bytes(source.read_bytes())
        if stage is Stage.BIE and case.images:
            inputs["ref_images"] = workdir / "ref_images.zip"
            inputs["ref_images"].write_bytes(case.images)
        task = ConversionTask(
            workdir=workdir,
            inputs=inputs,
            filename=case.path.name,
            platform="720",
            model_id=32768,
            version="0001",
            options=case.options,
        )
        return await self._isolation.run(
            f"{CONVERTERS[stage]}:convert", task, LIMITS, on_progress=_ignored, cancel=asyncio.Event()
        )


def _ignored(fraction: float, activity: str) -> None:
    """Nobody watches."""


def _begun_row(case: Case, done: dict[Stage, Converted]) -> list[str]:
    """The columns up to the peak, dashes for stages that did not finish."""
    nodes = "-"
    if Stage.ONNX in done:
        report = done[Stage.ONNX].conversion.report
        nodes = f"{report['source']['nodes']} to {report['result']['nodes']}"
    seconds = [f"{done[stage].run.duration_s:.2f}" if stage in done else "-" for stage in STAGES]
    peak = max((outcome.run.peak_memory_bytes for outcome in done.values()), default=0)
    return [case.name, case.data, f"{case.path.stat().st_size / 1024:.0f}", nodes, *seconds, f"{peak / 2**20:.0f}"]


def _failed_row(case: Case, done: dict[Stage, Converted], stage: Stage, outcome: Any) -> list[str]:  # noqa: ANN401 - any failure
    error = failure(outcome, stage)
    why = f"{error.code}: {outcome.message}" if isinstance(outcome, Refused) else error.message
    return [*_begun_row(case, done), "-", "-", why.replace("|", "/")]


def _table(rows: list[list[str]]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


async def _measure(packages: Path | None) -> list[list[str]]:
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as root:
        async with Isolation(preload=list(CONVERTERS.values())) as isolation:
            workbench = Workbench(isolation, Path(root))
            for case in cases(packages):
                found = await workbench.rows(case)
                sys.stderr.writelines("  ".join(row) + "\n" for row in found)
                rows += found
    return rows


def main() -> None:
    """Measures; prints the table or puts it between its marks in a document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--packages", type=Path, help="where the packages with models were installed")
    parser.add_argument("--write", type=Path, help="the document whose table is replaced")
    asked = parser.parse_args()
    table = _table(asyncio.run(_measure(asked.packages)))
    if asked.write is None:
        sys.stdout.write(table)
        return
    before, _, rest = asked.write.read_text().partition(BEGIN)
    asked.write.write_text(f"{before}{BEGIN}\n{table}{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
