"""The fault matrix names tests that are there, and says of a run what is true of it."""

from __future__ import annotations

import re

import pytest
from fault_matrix import PAGE, ROOT, ROWS, Row, filled, verdict

ROW = Row("it rains", "nobody gets wet", ("chaos/test_rain.py", "unit/test_roof.py::test_it_is_tight"))
RAIN, ROOF = "tests/chaos/test_rain.py::test_drops[2]", "tests/unit/test_roof.py::test_it_is_tight"


def test_the_committed_table_is_that_of_the_code() -> None:
    assert PAGE.read_text() == filled(PAGE.read_text()), "run `make generate`"


@pytest.mark.parametrize("cell", [cell for row in ROWS for cell in row.cells])
def test_every_cell_is_there(cell: str) -> None:
    module, _, name = cell.partition("::")
    found = re.findall(r"^(?:async )?def (test_\w+)\(", (ROOT / "tests" / module).read_text(), re.MULTILINE)
    assert name in found if name else found


@pytest.mark.parametrize(
    ("outcomes", "line"),
    [
        ({RAIN: True, ROOF: True}, "held    it rains: 2 of 2 held; chaos/test_rain.py, unit/test_roof.py"),
        ({RAIN: False, ROOF: True}, "FAILED  it rains: 1 of 2 held; chaos/test_rain.py, unit/test_roof.py"),
        (
            {RAIN: True, f"{ROOF}_too": True},
            f"held    it rains: 1 of 1 held; chaos/test_rain.py; not run: {ROW.cells[1]}",
        ),
        ({}, f"MISSING it rains: 0 of 0 held; not run: {', '.join(ROW.cells)}"),
    ],
)
def test_the_line_of_a_row_says_what_ran_and_how_it_went(outcomes: dict[str, bool], line: str) -> None:
    assert verdict(ROW, outcomes) == line


def test_what_was_left_out_is_told() -> None:
    assert verdict(ROW, {RAIN: True}, [ROOF]).endswith("; 1 left out; not run: unit/test_roof.py::test_it_is_tight")


def test_a_storm_is_named_by_its_seed() -> None:
    storm = Row("storm", "calm", ("chaos/test_storm.py",))
    assert "; seeds 11, 12" in verdict(storm, {f"tests/chaos/test_storm.py::test_x[{seed}]": True for seed in (11, 12)})
