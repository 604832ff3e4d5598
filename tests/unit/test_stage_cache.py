"""Whoever would convert is known by all that decides what comes of it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from converter.common.stage.cache import release, this_maker
from converter.common.stage.policy import StageConverter
from converter.contracts.job import Options, Preprocess, Stage, Toolchain
from converter.contracts.quantization import COMPILING, QUANTISING


@pytest.fixture
def roots(tmp_path: Path) -> list[Path]:
    """A package in two places, as distributions install it."""
    for place in ("a/converter/one", "b/converter/two"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "module.py").write_text(place)
    return [tmp_path / "a/converter", tmp_path / "b/converter"]


def test_every_file_of_the_software_counts_and_what_python_writes_beside_it_does_not(roots: list[Path]):
    seen = {release(roots)}
    assert release(reversed(roots)) in seen
    (roots[0] / "__pycache__").mkdir()
    (roots[0] / "__pycache__" / "module.cpython-311.pyc").write_bytes(b"x")
    assert release(roots) in seen
    for change in (
        lambda: (roots[0] / "one/module.py").write_text("changed"),
        lambda: (roots[1] / "two/module.py").rename(roots[1] / "two/renamed.py"),
        (roots[1] / "two/table.toml").touch,
    ):
        change()
        assert release(roots) not in seen
        seen.add(release(roots))


async def test_a_toolchain_that_cannot_be_told_has_no_maker():
    assert await this_maker(None) is None
    toolchain = Toolchain(name="t", version="1")
    maker = await this_maker(toolchain)
    assert maker
    assert maker.toolchain == toolchain
    assert await this_maker(toolchain) == maker


def test_a_converter_is_given_what_it_names_and_nothing_else():
    asked = Options(
        last_stage=Stage.BIE,
        input_shape={"": (1, 3, 8, 8)},
        preprocess=Preprocess(preset="yolo"),
        quantization={"min_snr_db": 20.0, "compiler_tiling": "deep_search"},
    )
    shapes = StageConverter(function="m:f", options=("input_shape",))
    assert shapes.given(asked) == Options(input_shape={"": (1, 3, 8, 8)})
    quantising = StageConverter(function="m:f", options=("preprocess",), keywords=QUANTISING)
    assert quantising.given(asked) == Options(preprocess=Preprocess(preset="yolo"), quantization={"min_snr_db": 20.0})
    compiling = StageConverter(function="m:f", keywords=COMPILING)
    assert msgspec.to_builtins(compiling.given(asked))["quantization"] == {"compiler_tiling": "deep_search"}
