"""Reads the toolchain's reports: the text of `evaluate()`, and the tables of its HTML report.

The texts are made for people and differ between releases, so what is not found is left out rather than refused.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

_LINE = re.compile(r"(?:^|[\s/])(?P<key>[A-Za-z_][\w ()/.%-]{0,80}?)\s*:\s*(?P<value>[^:]*?)\s*$")
_NUMBER = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_FIGURES = {
    "fps": "fps",
    "itc(ms)": "inference_ms",
    "rdma bandwidth gb/s": "read_bandwidth_gb_per_s",
    "wdma bandwidth gb/s": "write_bandwidth_gb_per_s",
    "gemm bandwidth gb/s": "gemm_bandwidth_gb_per_s",
}
"""By the last part of a line's key, in lower case."""
_CELLS = re.compile(r"\s*[,|\t]\s*|\s{2,}")
_MOST_CHARACTERS = 16 << 20
_LONGEST_LINE = 2000
_MOST_ROWS = 10_000
_NODE, _TYPE, _BACKEND = "node", "type", "node backend"
_SNR = "snr"


def speed(text: str) -> dict[str, Any]:
    """What `evaluate()` says. `cpu_nodes` is counted in its table of nodes, for its own `cpu_node` may say N/A there.

    `fps` is of the NPU's part alone.
    """
    lines = [line for line in text[:_MOST_CHARACTERS].splitlines() if len(line) <= _LONGEST_LINE]
    found: dict[str, Any] = {}
    for line in lines:
        if not (match := _LINE.search(line)):
            continue
        key, value = match["key"].rsplit("/ip_eval/", 1)[-1].strip().lower(), match["value"]
        name = next((name for ending, name in _FIGURES.items() if key.endswith(ending)), None)
        if name and (number := _NUMBER.search(value)):
            found[name] = float(number.group())
        elif key.endswith("cpu_node"):
            found["cpu_node_stated"] = value[:200]
        elif key.endswith("bitwidth"):
            found.setdefault("bitwidths", {})[key] = value[:40]
    nodes = _nodes(lines)
    on_cpu = [row[_NODE] for row in nodes if "CPU" in row.get(_TYPE, "").upper()]
    return {**found, "scope": "the NPU's part alone", "nodes": len(nodes), "cpu_nodes": on_cpu}


def _nodes(lines: list[str]) -> list[dict[str, str]]:
    """The rows of the table whose head has `node` and `type`."""
    head: list[str] = []
    rows: list[dict[str, str]] = []
    for line in lines:
        cells = [cell.strip() for cell in _CELLS.split(line.strip().strip("|").strip())]
        if not head:
            lowered = [cell.lower() for cell in cells]
            head = lowered if {_NODE, _TYPE} <= set(lowered) else []
        elif len(cells) == len(head) and len(rows) < _MOST_ROWS:
            if not set("".join(cells)) <= set("-=+"):
                rows.append(dict(zip(head, cells, strict=True)))
        else:
            break
    return rows


class _Tables(HTMLParser):
    """The text of all tables' cells, by row."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: list[list[str]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a row or a cell."""
        del attrs
        if tag == "tr":
            self.rows.append([])
            self._inside = False
        elif tag in {"td", "th"} and self.rows:
            self.rows[-1].append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        """Close a cell."""
        if tag in {"td", "th", "tr"}:
            self._inside = False

    def handle_data(self, data: str) -> None:
        """Fill a cell."""
        if self._inside:
            self.rows[-1][-1] += data.strip()


def layer_snr_db(html: str) -> dict[str, float]:
    """SNR in dB by node, from the tables of the HTML report that have a node and an SNR column."""
    parser = _Tables()
    parser.feed(html[:_MOST_CHARACTERS])
    found: dict[str, float] = {}
    node = snr = None
    for row in parser.rows[:_MOST_ROWS]:
        lowered = [cell.lower() for cell in row]
        named = next((index for index, cell in enumerate(lowered) if cell.startswith(_SNR)), None)
        if named is not None and _NODE in lowered:
            node, snr = lowered.index(_NODE), named
        elif node is not None and snr is not None and len(row) > max(node, snr) and _NUMBER.fullmatch(row[snr]):
            found[row[node]] = float(row[snr])
    return found
