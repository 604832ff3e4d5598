"""Whatever a client sends, the worker says what is wrong with it and goes on."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from integration.hostile import references
from integration.hostile.models import BOMBS, DIGITS, GRAPHS, MODELS, TENSORS, WRONG_FILES
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from converter.common.conversion import ConversionTask
from converter.common.isolation import Cancelled, Converted, Crashed, Isolation, Limits, Outcome, OutOfMemory, Refused
from converter.contracts.job import Options

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONVERTERS = {stage: f"converter.stage_{stage}.reference" for stage in ("onnx", "bie", "nef")}
PATIENT = Limits(timeout_s=60, memory_mb=1024, file_size_bytes=256 << 20)
BRIEF = replace(PATIENT, timeout_s=4)
"""For those that would take all the time there is."""
HARMLESS = frozenset(
    {
        "a chain of 300",
        "a model with an archive behind",
        "a name with a path, a page and a bell",
        "an opset of the past",
        "the largest weights",
        "infinite weights",
    }
)
"""Odd, and convertible all the same, or not, as the libraries please."""
TOOLCHAINS_FAULT = frozenset({"conversion_failed", "self_test_failed"})


@dataclass
class Bench:
    """One worker's isolation, which serves every case in turn."""

    isolation: Isolation
    root: Path
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def stage(self, stage: str, limits: Limits = PATIENT, **inputs: bytes | Path) -> Outcome:
        workdir = self.root / str(next(self.numbers))
        workdir.mkdir()
        paths = {}
        for role, content in inputs.items():
            paths[role] = workdir / f"{role}.input"
            paths[role].write_bytes(content.read_bytes() if isinstance(content, Path) else content)
        task = ConversionTask(
            workdir=workdir,
            inputs=paths,
            filename="model.onnx",
            platform="720",
            model_id=1,
            version="0001",
            options=Options(),
        )
        return await self.isolation.run(
            f"{CONVERTERS[stage]}:convert", task, limits, on_progress=lambda *_: None, cancel=asyncio.Event()
        )

    async def through(self, model: bytes, limits: Limits = PATIENT) -> Outcome:
        """All stages, until one fails."""
        outcome = await self.stage("onnx", limits, model=model)
        for source, stage in (("onnx", "bie"), ("bie", "nef")):
            if not isinstance(outcome, Converted):
                break
            outcome = await self.stage(stage, limits, **{source: outcome.conversion.artifact})
        return outcome


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with Isolation(preload=list(CONVERTERS.values())) as isolation:
        yield Bench(isolation, tmp_path_factory.mktemp("hostile"))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def static(bench: Bench) -> bytes:
    outcome = await bench.stage("onnx", model=DIGITS)
    assert isinstance(outcome, Converted)
    return outcome.conversion.artifact.read_bytes()


def assert_contained(outcome: Outcome, limits: Limits = PATIENT) -> None:
    """Bounded, and not a failure that nobody foresaw."""
    assert not isinstance(outcome, Cancelled)
    assert outcome.run.duration_s < limits.timeout_s + 1
    assert outcome.run.peak_memory_bytes < 1.5 * (limits.memory_mb << 20)
    if isinstance(outcome, Refused):
        assert outcome.code not in TOOLCHAINS_FAULT, (outcome.message, outcome.evidence)
        assert len(outcome.message) < 2000
    if isinstance(outcome, Crashed):
        assert outcome.broken is None


@pytest.mark.parametrize("name", [*WRONG_FILES, *GRAPHS, *TENSORS])
async def test_what_is_wrong_with_a_model_is_said(bench: Bench, name: str):
    outcome = await bench.through(MODELS[name]())
    assert_contained(outcome)
    assert isinstance(outcome, Refused) or name in HARMLESS, outcome


@pytest.mark.parametrize("name", BOMBS)
async def test_a_model_that_blows_up_takes_nobody_with_it(bench: Bench, name: str):
    assert_contained(await bench.through(BOMBS[name](), BRIEF), BRIEF)


async def test_a_model_that_needs_more_memory_than_there_is_is_not_called_invalid(bench: Bench):
    """The runtime asks for 16 GiB at once and is refused, in words of its own."""
    graph = helper.make_graph(
        [helper.make_node("Expand", ["x", "shape"], ["wide"]), helper.make_node("ReduceSum", ["wide"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([2**30, 4]), "shape")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    outcome = await bench.stage("onnx", model=model.SerializeToString())
    assert isinstance(outcome, OutOfMemory), outcome


@pytest.mark.parametrize("name", references.FILES)
async def test_a_harmful_file_is_skipped_and_listed(bench: Bench, static: bytes, name: str):
    images = references.good_archive(("harmful", references.FILES[name]()))
    outcome = await bench.stage("bie", onnx=static, ref_images=images)
    assert_contained(outcome)
    if isinstance(outcome, Refused):
        # Arrays that can be read, but not for this model, are the client's mistake and not damage.
        assert outcome.code == "calibration_mismatch"
        return
    assert isinstance(outcome, Converted)
    assert [skipped["name"] for skipped in outcome.conversion.report["calibration"]["skipped"]] == ["harmful"]


@pytest.mark.parametrize("name", references.USABLE)
async def test_an_odd_image_is_used(bench: Bench, static: bytes, name: str):
    outcome = await bench.stage(
        "bie", onnx=static, ref_images=references.good_archive(("odd", references.USABLE[name]()))
    )
    assert isinstance(outcome, Converted)
    assert outcome.conversion.report["calibration"]["skipped"] == []


@pytest.mark.parametrize("name", references.BROKEN_ARCHIVES)
async def test_an_archive_without_a_usable_file_is_refused(bench: Bench, static: bytes, name: str):
    outcome = await bench.stage("bie", onnx=static, ref_images=references.BROKEN_ARCHIVES[name]())
    assert_contained(outcome)
    assert isinstance(outcome, Refused)
    assert outcome.code == "calibration_unreadable"


@pytest.mark.parametrize("name", references.ODD_ARCHIVES)
async def test_names_in_an_archive_are_labels_only(bench: Bench, static: bytes, name: str):
    outcome = await bench.stage("bie", onnx=static, ref_images=references.ODD_ARCHIVES[name]())
    assert isinstance(outcome, Converted)
    inside = {path.name for path in outcome.conversion.artifact.parent.iterdir()}
    assert inside == {"onnx.input", "ref_images.input", "model.ref.bie", "stage.log"}


@pytest.mark.parametrize("damage", ["cut off", "turned over", "a model"])
async def test_a_stored_artifact_that_was_tampered_with_is_called_corrupt(bench: Bench, static: bytes, damage: str):
    sound = await bench.stage("bie", onnx=static)
    assert isinstance(sound, Converted)
    content = sound.conversion.artifact.read_bytes()
    changed = {
        "cut off": content[: len(content) // 2],
        "turned over": content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
        "a model": static,
    }
    outcome = await bench.stage("nef", bie=changed[damage])
    assert isinstance(outcome, Refused)
    assert outcome.code == "artifact_corrupt"


async def test_after_all_of_them_the_same_worker_converts_a_good_model(bench: Bench):
    for name in ("40 doublings of a constant", "hours of products", "noise"):
        bomb, good = await asyncio.gather(bench.through(MODELS[name](), BRIEF), bench.through(DIGITS))
        assert not isinstance(bomb, Converted)
        assert isinstance(good, Converted)
