from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from converter.common.conversion import Conversion
from converter.devstack.demo import DATA

from .workshop import Workshop


class Digits(NamedTuple):
    """The demo's model through all stages, with its 100 images."""

    source: Path
    images: Path
    onnx: Conversion
    bie: Conversion
    nef: Conversion


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture(scope="session")
def digit_images() -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in sorted((DATA / "digits_calibration").glob("*.png"))]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory, digit_images: list[tuple[str, bytes]]) -> Digits:
    workshop = Workshop(tmp_path_factory.mktemp("digits"), "digits_cnn.onnx")
    source, images = DATA / "digits_cnn.onnx", workshop.archive(digit_images)
    return Digits(source, images, *workshop.all(source, images))
