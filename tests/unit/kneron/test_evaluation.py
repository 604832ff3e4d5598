from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from converter.kneron import evaluation

TEXT = """\
[info] something: else
kdp520/ip_eval/fps: 21.352
kdp520/ip_eval/ITC(ms): 46.8341 ms
kdp520/ip_eval/RDMA bandwidth GB/s: 0.800000
kdp520/ip_eval/cpu_node: N/A
kdp520/ip_eval/weight_bitwidth: int8
| node | node origin | type | node backend |
|------|-------------|------|--------------|
| conv_1 | conv | NPU | conv |
| softmax_2 | softmax | CPU | softmax |
| gather_3 | gather | CPU | gather |

afterwards: 1
"""


def test_figures_and_cpu_nodes_are_read():
    found = evaluation.speed(TEXT)
    assert found["fps"] == 21.352
    assert found["inference_ms"] == 46.8341
    assert found["read_bandwidth_gb_per_s"] == 0.8
    assert found["cpu_node_stated"] == "N/A"
    assert found["bitwidths"] == {"weight_bitwidth": "int8"}
    assert found["nodes"] == 3
    assert found["cpu_nodes"] == ["softmax_2", "gather_3"]


def test_tables_are_read_however_their_columns_are_parted():
    for by in (", ", "\t", "   "):
        table = "\n".join(by.join(row) for row in (["node", "node origin", "type"], ["a b", "x", "CPU"]))
        assert evaluation.speed(table)["cpu_nodes"] == ["a b"]


def test_layers_of_the_html_report_are_read():
    html = (
        "<table><tr><th>node</th><th>cycles</th><th>SNR(dB)</th></tr>"
        "<tr><td><b>a</b></td><td>5</td><td>30.5</td></tr><tr><td>c</td><td>5</td><td>N/A</td></tr></table>"
    )
    assert evaluation.layer_snr_db(html) == {"a": 30.5}


@given(st.text(max_size=300))
def test_any_text_is_read(text: str):
    evaluation.speed(text)
    evaluation.speed(TEXT + text)
    evaluation.layer_snr_db(f"<table><tr><td>node<td>snr<tr><td>{text}<td>1")
