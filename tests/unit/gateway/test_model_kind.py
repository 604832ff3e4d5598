from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from converter.gateway.model_kind import TOP_LEVEL_FIELDS_MAX, NotOnnx, OnnxRecogniser, image_kind, looks_like


def small_model() -> bytes:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    model = helper.make_model(graph, producer_name="test", doc_string="words")
    helper.set_model_props(model, {"a": "b", "c": ""})
    serialised: bytes = model.SerializeToString()
    return serialised


MODEL = small_model()


def recognise(data: bytes, piece: int = 1 << 20) -> None:
    recogniser = OnnxRecogniser()
    for start in range(0, len(data), piece):
        recogniser.feed(data[start : start + piece])
    recogniser.finish()


def refusal(data: bytes) -> str:
    with pytest.raises(NotOnnx) as caught:
        recognise(data)
    return str(caught.value)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64, 100_000])
def test_a_model_is_recognised_in_pieces_of_any_size(piece: int):
    recognise(MODEL, piece)


def test_every_model_of_onnx_itself_is_recognised():
    models = [path.read_bytes() for path in Path(onnx.__file__).parent.glob("backend/test/data/light/*.onnx")]
    assert models
    for model in models:
        recognise(model, 4096)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "looks like a PNG image"),
        (b"\xff\xd8\xff\xe0" + bytes(40), "looks like a JPEG image"),
        (b"PK\x03\x04" + bytes(40), "looks like a ZIP archive (a PyTorch checkpoint is one)"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "looks like an HDF5 file (Keras)"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(40), "looks like a TensorFlow Lite model"),
        (b"\x80\x04\x95\x10" + bytes(40), "looks like a Python pickle"),
        (b"hello, this is no model\n", "looks like plain text"),
        (b":abc", "looks like plain text"),
        ("grüße".encode() * 200, "looks like plain text"),
        (b"<!DOCTYPE html><html><body>Not found</body></html>", "looks like an HTML page"),
        (bytes(100), "is of an unknown kind"),
        (b"\x08\x0a", "is of an unknown kind"),
    ],
)
def test_a_file_of_another_kind_is_named(data: bytes, found: str):
    assert refusal(data) == found


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n", b"plain text, and long enough", b"\x00\x00"])
def test_another_kind_is_told_by_its_first_bytes(data: bytes):
    with pytest.raises(NotOnnx):
        OnnxRecogniser().feed(data)


@given(st.integers(1, len(MODEL) - 1))
def test_a_cut_model_is_never_taken_unless_it_is_cut_between_fields(length: int):
    try:
        recognise(MODEL[:length])
    except NotOnnx:
        return
    onnx.load_model_from_string(MODEL[:length])


def test_a_model_cut_in_its_graph_says_how_much_is_missing():
    assert refusal(MODEL[: MODEL.index(b"Relu")]).startswith("is cut off: ")


def test_a_second_graph_is_refused():
    assert refusal(MODEL + b"\x3a\x00") == "is of an unknown kind"


def test_fields_without_end_are_refused():
    with pytest.raises(NotOnnx, match="top-level fields"):
        OnnxRecogniser().feed(b"\x08\x0a" + b"\x72\x00" * (TOP_LEVEL_FIELDS_MAX + 1))


@given(st.binary(max_size=2000), st.integers(1, 50))
def test_no_bytes_break_it_and_pieces_do_not_matter(data: bytes, piece: int):
    outcomes = []
    for size in (piece, 1 << 20):
        try:
            recognise(data, size)
        except NotOnnx:
            outcomes.append(False)
        else:
            outcomes.append(True)
    assert outcomes[0] == outcomes[1]


@given(st.binary(max_size=600))
def test_whatever_it_is_it_can_be_named(head: bytes):
    assert looks_like(head)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d", "PNG"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01", "JPEG"),
        (b"BM\x36\x00\x00\x00\x00\x00\x00\x00\x36\x00", "BMP"),
        (b"RIFF\x24\x00\x00\x00WEBP", "WebP"),
        (b"RIFF\x24\x00\x00\x00WAVE", None),
        (b"GIF89a\x01\x00\x01\x00\x00\x00", None),
        (b"PK\x03\x04", None),
        (b"", None),
    ],
)
def test_images_are_told_by_their_magic_numbers(head: bytes, kind: str | None):
    assert image_kind(head) == kind
