from __future__ import annotations

import subprocess
import sys

import pytest

from converter.common import operators

NATIVE = [("520", 22), ("720", 36), ("530", 44), ("630", 44), ("730", 53)]
"""How many operators the NPU of each chip computes, counted in the vendor's page."""


@pytest.mark.parametrize(("platform", "native"), NATIVE)
def test_the_table_is_the_vendors(platform: str, native: int):
    table = operators._table()  # noqa: SLF001 - the table is data, and this checks it whole
    found = operators.verdicts(dict.fromkeys(table.operators, 1), platform)
    assert len(found) == 177
    assert sum(each.verdict in {"npu", "npu-conditional"} for each in found) == native


def test_verdicts_differ_by_chip_and_say_why():
    counts = {"Conv": 3, "Mul": 2, "Sigmoid": 2}
    found = {each.op: each for each in operators.verdicts(counts, "520")}
    assert (found["Conv"].verdict, found["Mul"].verdict) == ("npu-conditional", "cpu-or-rewritten")
    assert "kernel at most 12" in found["Conv"].reason
    assert {each.op: each.verdict for each in operators.verdicts(counts, "730")} == {
        "Conv": "npu-conditional",
        "Mul": "npu",
        "Sigmoid": "npu",
    }


@pytest.mark.parametrize("op", ["Gelu", "com.microsoft:FusedConv", "Nonsense"])
def test_what_the_vendor_does_not_list_is_unknown_and_not_called_a_fallback(op: str):
    (found,) = operators.verdicts({op: 1}, "720")
    assert found.verdict == "unknown"
    assert operators.headline([found], "720") is None


def test_fallbacks_come_first_and_make_the_headline():
    report = operators.report({"Relu": 5, "Mul": 2, "Sin": 1}, "520")
    assert [row.op for row in report.operators] == ["Mul", "Sin", "Relu"]
    assert (report.headline or "").startswith("3 of 8 nodes")
    assert "Mul (2), Sin (1)" in (report.headline or "")
    assert operators.report({"Relu": 5}, "520").headline is None


def test_the_table_needs_neither_onnx_nor_numpy():
    program = (
        "import sys; from converter.common import operators; operators.report({'Conv': 1}, '720');"
        "assert not {'onnx', 'numpy', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
