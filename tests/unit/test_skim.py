from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from converter.common.conversion import ConversionRefused
from converter.common.skim import Limits, ModelWalk, skim, skim_bytes
from converter.devstack.demo import DATA

DIGITS = (DATA / "digits_cnn.onnx").read_bytes()
FLOAT = TensorProto.FLOAT


def a_model(*nodes: onnx.NodeProto, initialisers: tuple[onnx.TensorProto, ...] = ()) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Relu", ["x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", FLOAT, ["N", 3])],
        list(initialisers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def a_tensor(dims: list[int], data: bytes = b"") -> onnx.TensorProto:
    return onnx.TensorProto(name="w", data_type=FLOAT, dims=dims, raw_data=data)


def refusal(content: bytes, limits: Limits | None = None) -> ConversionRefused:
    with pytest.raises(ConversionRefused) as refused:
        skim_bytes(content, limits or Limits())
    return refused.value


def test_a_model_is_described_as_onnx_describes_it():
    model = onnx.load_from_string(DIGITS)
    seen = skim(DATA / "digits_cnn.onnx")
    assert (seen.ir_version, seen.opset, seen.producer) == (6, 11, "train_digits")
    assert seen.nodes == len(model.graph.node)
    assert seen.weight_bytes == sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    assert seen.inputs[0].shape == ("N", 3, 32, 32)
    assert [value.name for value in seen.outputs] == ["logits"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\x03\x04rest", "ZIP"),
        (b"\x89PNG\r\n", "PNG"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"%PDF-1.7", "PDF"),
        (b"\x80\x02}q", "pickle"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
        (b"\x1c\0\0\0ORTM", "ONNX Runtime"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"<!DOCTYPE html>", "HTML"),
        (b"\x40\0\0\0\0\0\0\0" + b'{"w":', "safetensors"),
        (b"Hello, world", "not an ONNX model"),
    ],
)
def test_a_wrong_file_is_called_by_its_name(content: bytes, what: str):
    refused = refusal(content)
    assert refused.code == "model_invalid"
    assert what in refused.message


def test_an_empty_file_is_called_empty(tmp_path: Path):
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ConversionRefused, match="empty"):
        skim(tmp_path / "empty.onnx")


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, len(DIGITS) - 1), st.integers(0, 255)), min_size=1, max_size=20))
def test_changed_bytes_are_described_or_refused_and_nothing_else(changes: list[tuple[int, int]]):
    content = bytearray(DIGITS)
    for position, byte in changes:
        content[position] = byte
    try:
        skim_bytes(bytes(content))
    except ConversionRefused as refused:
        assert refused.code in {"model_invalid", "model_unsupported"}  # noqa: PT017 - a description is as good


@settings(max_examples=60)
@given(st.integers(1, len(DIGITS) - 1))
def test_a_model_that_is_cut_off_is_refused(length: int):
    assert refusal(DIGITS[:length]).code == "model_invalid"


@given(st.binary(min_size=1, max_size=400))
def test_any_bytes_are_refused(content: bytes):
    assert refusal(content).code in {"model_invalid", "model_unsupported"}


@pytest.mark.parametrize("op", ["If", "Loop", "Scan", "SequenceMap"])
def test_control_flow_is_refused_with_its_node(op: str):
    refused = refusal(a_model(helper.make_node(op, ["x"], ["y"], name="branch")).SerializeToString())
    assert (refused.code, refused.node, refused.op) == ("model_unsupported", "branch", op)


def test_a_graph_within_a_node_is_refused():
    node = helper.make_node("Relu", ["x"], ["y"], name="odd", inner=a_model().graph)
    assert refusal(a_model(node).SerializeToString()).node == "odd"


def test_foreign_operators_are_refused():
    node = helper.make_node("Magic", ["x"], ["y"], domain="com.example")
    assert "com.example" in refusal(a_model(node).SerializeToString()).message


def test_a_quantised_model_is_refused():
    node = helper.make_node("QuantizeLinear", ["x", "s"], ["y"])
    assert "quantised already" in refusal(a_model(node).SerializeToString()).message


def test_functions_are_refused():
    model = a_model()
    model.functions.append(onnx.FunctionProto(name="f", domain="d"))
    assert "functions" in refusal(model.SerializeToString()).message


def test_weights_in_other_files_are_refused():
    tensor = a_tensor([1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    refused = refusal(a_model(initialisers=(tensor,)).SerializeToString())
    assert (refused.code, "'w'" in refused.message) == ("model_unsupported", True)


def test_sparse_weights_are_refused():
    model = a_model()
    model.graph.sparse_initializer.add(dims=[1 << 40])
    assert "sparse" in refusal(model.SerializeToString()).message


@pytest.mark.parametrize(
    ("tensor", "code"),
    [
        (a_tensor([2, 2], b"\0" * 12), "model_invalid"),
        (a_tensor([-1], b"\0" * 4), "model_invalid"),
        (a_tensor([1 << 20, 1 << 20]), "model_unsupported"),
        (a_tensor([1 << 20]), "model_invalid"),
        (a_tensor([1] * 65, b"\0" * 4), "model_invalid"),
    ],
    ids=["too few bytes", "negative", "overflow", "no data", "rank"],
)
def test_weights_that_lie_about_their_size_are_refused(tensor: onnx.TensorProto, code: str):
    # onnx cannot set an empty raw_data, so an absent one is declared by clearing it.
    if not tensor.raw_data:
        tensor.ClearField("raw_data")
    assert refusal(a_model(initialisers=(tensor,)).SerializeToString()).code == code


def test_weights_in_typed_fields_are_counted():
    typed = helper.make_tensor("w", TensorProto.INT32, [4], [1, 2, 3, 4])
    raw = numpy_helper.from_array(np.ones(3, np.float16), "v")
    assert skim_bytes(a_model(initialisers=(typed, raw)).SerializeToString()).parameters == 7


def test_inputs_that_an_initialiser_feeds_are_not_listed():
    model = a_model(initialisers=(a_tensor([1], b"\0" * 4),))
    model.graph.input.append(helper.make_tensor_value_info("w", FLOAT, [1]))
    assert [value.name for value in skim_bytes(model.SerializeToString()).inputs] == ["x"]


def test_the_budget_of_fields_bounds_the_time():
    model = a_model()
    model.graph.node[0].input.extend([""] * 1000)
    assert "too many fields" in refusal(model.SerializeToString(), Limits(fields=900)).message


def test_nodes_and_names_are_bounded():
    assert "nodes" in refusal(DIGITS, Limits(nodes=12)).message
    assert "tensors" in refusal(DIGITS, Limits(tensors=3)).message
    assert "name" in refusal(DIGITS, Limits(name_bytes=3)).message


def test_neither_onnx_nor_numpy_is_needed():
    program = "import sys, converter.common.skim; print({'onnx', 'numpy', 'onnxruntime'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100_000])
def test_a_model_may_arrive_in_pieces_of_any_size(size: int):
    walk = ModelWalk()
    for start in range(0, len(DIGITS), size):
        walk.feed(DIGITS[start : start + size])
    assert walk.finish() == skim_bytes(DIGITS)


@given(st.binary(max_size=600), st.integers(1, 50))
def test_pieces_do_not_change_what_is_found(content: bytes, size: int):
    def found(piece_size: int) -> str:
        walk = ModelWalk()
        try:
            for start in range(0, len(content), piece_size):
                walk.feed(content[start : start + piece_size])
            walk.finish()
        except ConversionRefused as refused:
            return refused.code
        return "model"

    assert found(size) == found(1000)


def test_every_model_of_onnx_itself_is_read_or_refused_with_a_reason():
    models = sorted(Path(onnx.__file__).parent.glob("backend/test/data/light/*.onnx"))
    assert models
    for path in models:
        try:
            assert skim(path) == skim_bytes(path.read_bytes())
        except ConversionRefused as refused:
            assert refused.code == "model_unsupported"  # noqa: PT017 - a description is as good


@pytest.mark.parametrize(
    ("head", "what"),
    [(b"hello, this is no model\n", "plain text"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"<!DOCTYPE html><html>", "HTML")],
)
def test_another_kind_is_told_by_its_first_bytes(head: bytes, what: str):
    with pytest.raises(ConversionRefused, match=what):
        ModelWalk().feed(head)


def test_a_file_that_is_cut_within_its_weights_is_refused_though_they_are_not_read(tmp_path: Path):
    content = a_model(initialisers=(a_tensor([1 << 18], bytes(1 << 20)),)).SerializeToString()
    (tmp_path / "whole.onnx").write_bytes(content)
    assert skim(tmp_path / "whole.onnx").weight_bytes == 1 << 20
    (tmp_path / "cut.onnx").write_bytes(content[: 1 << 19])
    with pytest.raises(ConversionRefused, match="cut off"):
        skim(tmp_path / "cut.onnx")


def test_what_a_walk_keeps_is_bounded():
    nodes = [helper.make_node(f"Op{number}", ["x"], ["y"]) for number in range(3)]
    assert "kinds of operators" in refusal(a_model(*nodes).SerializeToString(), Limits(operators=2)).message
    model = a_model()
    model.graph.input.extend([helper.make_tensor_value_info(f"{number:0100d}", FLOAT, [1]) for number in range(10)])
    assert "names" in refusal(model.SerializeToString(), Limits(kept_bytes=500)).message
