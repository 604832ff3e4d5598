from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.stage_bie.schemes import resolve
from converter.toolchain.reference import artifact_name
from converter.toolchain.steps import refusal_of


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("yolo.onnx", "yolo.ref.nef"),
        ("../../etc/passwd", "passwd.ref.nef"),
        ("C:\\models\\my net (1).onnx", "my_net_1.ref.nef"),
        ("模型.onnx", "model.ref.nef"),
        (".onnx", "model.ref.nef"),
        ("", "model.ref.nef"),
    ],
)
def test_names_of_artifacts(filename: str, name: str):
    assert artifact_name(filename, ".ref.nef") == name


@given(st.text(max_size=300))
def test_names_of_artifacts_are_always_safe(filename: str):
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.ref\.bie", artifact_name(filename, ".ref.bie"))


@pytest.mark.parametrize(
    ("text", "node", "op"),
    [
        ("Non-zero status code returned while running Reshape node. Name:'r1' Status Message: x", "r1", "Reshape"),
        ("[ShapeInferenceError] (op_type:Conv, node name: conv1): Dimension mismatch", "conv1", "Conv"),
        ("No Op registered for Foo with domain_version of 11\n==> Context: Bad node", None, "Foo"),
        ("Could not find an implementation for Bar(13) node with name 'b'", "b", "Bar"),
        ("something else", None, None),
    ],
)
def test_the_node_is_told_from_a_librarys_words(text: str, node: str | None, op: str | None):
    refused = refusal_of(RuntimeError(text), "conversion_failed", "optimising")
    assert (refused.node, refused.op, refused.evidence) == (node, op, text.splitlines()[0])


@pytest.mark.parametrize(
    ("keywords", "method", "percentile"),
    [
        ({}, "MinMax", None),
        ({"datapath_range_method": "percentage"}, "Percentile", 99.9),
        ({"percentage": 1.0}, "Percentile", 100.0),
        ({"datapath_range_method": "percentage", "percentage": 0.9995}, "Percentile", 99.95),
        ({"datapath_range_method": "mmse"}, "LeastSquareError", None),
    ],
)
def test_the_vendors_range_methods_have_a_meaning_here(
    keywords: dict[str, object], method: str, percentile: float | None
):
    scheme = resolve(keywords)
    assert (scheme.method, scheme.percentile, scheme.ignored) == (method, percentile, ())


def test_keywords_without_a_meaning_are_named_unless_they_ask_for_what_is_done_anyway():
    keywords = {"mode": 3, "optimize": 0, "weight_bitwidth_mode": "int4", "datapath_bitwidth_mode": "int8"}
    assert resolve(keywords).ignored == ("mode", "weight_bitwidth_mode")
