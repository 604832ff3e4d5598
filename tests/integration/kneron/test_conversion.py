"""The three stages with the vendor's toolchain, its interpreter a real process that has the stand-ins."""

from __future__ import annotations

import importlib.util
import io
import json
import os
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image
from published import validator

from converter.common.conversion import ConversionRefused
from converter.contracts.failures import FAILURES
from converter.contracts.job import Toolchain
from converter.contracts.report.stage import Run
from converter.kneron import nef_file

from .conftest import Works, a_classifier

KNERON = Toolchain(name="kneron", version="0.25.0")


def an_image(seed: int) -> tuple[str, bytes]:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return f"{seed}.png", written.getvalue()


def refused(convert: object, *arguments: object, **options: object) -> ConversionRefused:
    with pytest.raises(ConversionRefused) as refusal:
        convert(*arguments, **options)
    assert FAILURES[refusal.value.code].hint
    return refusal.value


def test_a_model_goes_through_all_stages(works: Works):
    made = works.onnx(a_classifier())
    assert made.filename == "my_net.onnx"
    assert made.toolchain == KNERON
    assert made.report["result"]["inputs"][0]["shape"] == [1, 3, 8, 8]

    images = works.images(*(an_image(seed) for seed in range(25)), ("broken.png", b"nothing"))
    quantised = works.bie(made.artifact, images, percentage=1.0, mode=2, min_snr_db=5)
    assert quantised.filename == "my_net.kdp720.bie"
    report = quantised.report
    assert report["calibration"]["used"] == 20
    assert [skipped["name"] for skipped in report["calibration"]["skipped"]] == ["broken.png"]
    assert report["accuracy"]["samples_count"] == 5
    assert report["accuracy"]["snr_db"] > 5
    assert report["layers_snr_db"] == {"conv": 31.5}
    assert works.told[-1] == (1.0, "done")

    compiled = works.nef(quantised.artifact, quantised.toolchain, compiler_tiling="deep_search")
    assert compiled.filename == "my_net.kdp720.nef"
    nef = nef_file.read(compiled.artifact.read_bytes())
    nef_file.check(nef, platform="720", model_id=32769, version="00A1")
    assert compiled.report["nef"]["models"] == [{"name": "model", "id": 32769, "version": "00a1"}]
    for part, conversion in {"OnnxReport": made, "BieReport": quantised, "NefReport": compiled}.items():
        stored = msgspec.json.encode({**conversion.report, "warnings": conversion.warnings, "run": Run()})
        validator("report", part).validate(msgspec.json.decode(stored))


def test_nodes_on_the_cpu_are_counted_though_the_summary_says_none(works: Works, static: Path):
    made = works.bie(static)
    assert made.report["speed"]["fps"] == 21.352
    assert made.report["speed"]["cpu_node_stated"] == "N/A"
    assert made.report["speed"]["cpu_nodes"] == ["softmax"]
    assert any("1 nodes run on the chip's CPU" in warning for warning in made.warnings)


def test_made_up_calibration_data_is_told(works: Works, static: Path):
    assert any("made-up data" in warning for warning in works.bie(static).warnings)


def test_keywords_reach_the_calls_that_take_them(works: Works, static: Path):
    made = works.bie(
        static,
        platform="730",
        datapath_bitwidth_mode="mixbw",
        weight_bitwidth_mode="int16",
        flops_ratio=0.5,
        datapath_range_method="mmse",
        percentile=0.01,
        compiler_tiling="deep_search",
        quan_config={"conv": "int16"},
        optimize=2,
    )
    assert made.report["speed"]["bitwidths"] == {"weight_bitwidth": "int16"}


def test_a_larger_part_of_all_values_holds_for_16_bits_too(works: Works, static: Path):
    made = works.bie(static, percentage=1.0)
    assert made.report["quantisation"]["keywords"] == {"percentage": 1.0, "percentage_16b": 1.0}


def test_arrays_of_several_inputs_reach_the_quantiser_as_float32(works: Works):
    node = helper.make_node
    graph = helper.make_graph(
        [node("Add", ["a", "b"], ["y"], name="sum")],
        "pair",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4]) for name in ("a", "b")],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    arrays = io.BytesIO()
    np.savez(arrays, a=np.arange(4.0), b=np.ones((1, 4), np.int64))
    made = works.bie(works.onnx(model).artifact, works.images(("first.npz", arrays.getvalue())))
    assert made.report["calibration"]["used"] == 1


def test_a_collapsed_output_is_told(works: Works, static: Path):
    works.install("collapse")
    made = works.bie(static)
    assert any("'scores' collapsed" in warning for warning in made.warnings)
    assert made.report["verdict"] == "poor"
    assert refused(works.bie, static, min_snr_db=10).code == "accuracy_below_minimum"


def test_a_model_that_cannot_be_simulated_is_made_and_told(works: Works, static: Path):
    works.install("no_simulator")
    made = works.bie(static)
    assert made.report["accuracy"] is None
    assert any("the simulator does not start" in warning for warning in made.warnings)
    assert refused(works.bie, static, min_snr_db=1).code == "accuracy_below_minimum"


@pytest.mark.parametrize(
    ("failure", "code"),
    [("rank", "model_invalid"), ("ir_version", "ir_version_unsupported"), ("external", "model_unsupported")],
)
def test_what_fails_the_optimiser_is_named(works: Works, failure: str, code: str):
    works.install(failure)
    assert refused(works.onnx, a_classifier()).code == code


def test_an_operator_of_the_vendors_own_is_told_and_kept(works: Works):
    works.install("own_operator")
    made = works.onnx(a_classifier())
    assert "KneronSoftmax" in made.report["result"]["operators"]
    assert any("not plain ONNX" in warning for warning in made.warnings)


def test_a_model_that_takes_other_inputs_than_asked_for_is_no_result(works: Works):
    works.install("other_inputs")
    assert refused(works.onnx, a_classifier()).code == "artifact_invalid"


@pytest.mark.parametrize(
    ("failure", "code", "node", "op"),
    [
        ("cpu_op", "operator_unsupported", "head_3", "KneronSwizzle"),
        ("image_folder", "calibration_mismatch", None, None),
        ("radix", "quantisation_failed", None, None),
        ("program_aborts", "toolchain_aborted", None, None),
        ("program_killed", "stage_out_of_memory", None, None),
        ("abort", "toolchain_aborted", None, None),
        ("babble", "toolchain_aborted", None, None),
        ("unheard_of", "quantisation_failed", None, None),
        ("bie_not_made", "quantisation_failed", None, None),
        ("empty_bie", "artifact_invalid", None, None),
        ("bie_of_another_chip", "artifact_invalid", None, None),
    ],
)
def test_what_fails_the_quantiser_is_named(
    works: Works, static: Path, failure: str, code: str, node: str | None, op: str | None
):
    works.install(failure)
    refusal = refused(works.bie, static)
    assert (refusal.code, refusal.node, refusal.op) == (code, node, op)


@pytest.mark.parametrize(
    ("failure", "code", "node"),
    [
        ("no_bie", "bie_incompatible", None),
        ("hw", "operator_unsupported", "conv_17"),
        ("compile", "compilation_failed", None),
        ("err_4", "compilation_failed", None),
        ("exit", "compilation_failed", None),
        ("nef_damaged", "artifact_invalid", None),
        ("nef_of_another_chip", "artifact_invalid", None),
        ("nef_of_another_model", "artifact_invalid", None),
        ("nef_of_another_version", "artifact_invalid", None),
    ],
)
def test_what_fails_the_compiler_is_named(works: Works, quantised: Path, failure: str, code: str, node: str | None):
    works.install(failure)
    refusal = refused(works.nef, quantised, KNERON)
    assert (refusal.code, refusal.node) == (code, node)


def test_the_log_line_is_the_evidence(works: Works, static: Path, capfd: pytest.CaptureFixture[str]):
    works.install("cpu_op")
    refusal = refused(works.bie, static)
    assert refusal.evidence == "undefined CPU op [KneronSwizzle] of node [head_3]"
    log = capfd.readouterr().out
    assert "[analysis] from C" in log
    assert "[analysis] from Python" in log
    assert "RuntimeError: the flow failed" in log


def test_a_toolchain_killed_for_want_of_memory_is_out_of_memory(works: Works, static: Path):
    works.install("killed")
    with pytest.raises(MemoryError):
        works.bie(static)


def test_an_interpreter_that_is_not_there_is_the_services_fault(works: Works, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KNERON_DEPLOYMENT", json.dumps({"python": "/nowhere/python"}))
    refusal = refused(works.onnx, a_classifier())
    assert refusal.code == "toolchain_unavailable"
    assert FAILURES[refusal.code].retryable


def test_a_python_without_the_toolchain_is_the_services_fault(works: Works, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KNERON_DEPLOYMENT", json.dumps({"python": "/usr/bin/python3"}))
    bie = works.root / "some.bie"
    bie.write_bytes(b"anything")
    assert refused(works.nef, bie, KNERON).code == "toolchain_unavailable"


@pytest.mark.parametrize(
    "maker",
    [
        None,
        Toolchain(name="reference", version="1"),
        Toolchain(name="kneron", version="0.22.0"),
        Toolchain(name="kneron", version="0.30.1"),
        Toolchain(name="kneron", version="unknown"),
    ],
)
def test_a_quantised_model_from_across_a_break_is_not_compiled(works: Works, maker: Toolchain | None):
    bie = works.root / "some.bie"
    bie.write_bytes(b"anything")
    assert refused(works.nef, bie, maker).code == "bie_incompatible"


def test_reference_data_that_does_not_fit_memory_is_refused_at_once(
    works: Works, static: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KNERON_DEPLOYMENT", json.dumps({"python": "/nowhere/python", "memory_mb": 0}))
    refusal = refused(works.bie, static, works.images(an_image(1)))
    assert refusal.code == "stage_out_of_memory"


@pytest.mark.parametrize(
    ("status", "code", "evidence"),
    [
        (125, "toolchain_unavailable", "docker: Error response from daemon: No such image."),
        (127, "toolchain_unavailable", "docker: Error response from daemon: No such image."),
        (134, "toolchain_aborted", "docker: Error response from daemon: No such image."),
        (137, "stage_out_of_memory", None),
    ],
)
def test_how_a_container_ends_is_told_apart(
    works: Works, monkeypatch: pytest.MonkeyPatch, status: int, code: str, evidence: str | None
):
    """A program called docker that ends as the real client does (`docker run`, exit status)."""
    client = works.root / "docker"
    client.write_text(
        "#!/bin/sh\necho 'docker: Error response from daemon: No such image.' >&2\necho 'Run --help' >&2\n"
        f"exit {status}\n"
    )
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{works.root}:{os.environ['PATH']}")
    monkeypatch.setenv("KNERON_DEPLOYMENT", json.dumps({"image": "toolchain@sha256:0"}))
    if code == "stage_out_of_memory":
        with pytest.raises(MemoryError):
            works.onnx(a_classifier())
        return
    refusal = refused(works.onnx, a_classifier())
    assert (refusal.code, refusal.evidence) == (code, evidence)


def test_a_model_in_half_precision_is_widened_first(works: Works):
    model = a_classifier(1)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    weights = model.graph.initializer[0]
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights).astype(np.float16), weights.name))
    made = works.onnx(model)
    assert made.report["result"]["inputs"][0]["dtype"] == "float32"
    assert any("half precision" in warning for warning in made.warnings)


def test_no_service_can_import_the_stand_ins():
    assert importlib.util.find_spec("ktc") is None
    assert importlib.util.find_spec("kneronnxopt") is None
