"""The page for those who are in trouble names every code, as the code has it."""

from __future__ import annotations

import pytest
from troubleshooting import FAILED_WHEN, PAGE, filled

from converter.contracts.failures import FAILURES
from converter.gateway.http.errors import ERRORS


def test_the_committed_tables_are_those_of_the_code() -> None:
    assert PAGE.read_text() == filled(PAGE.read_text()), "run `make generate`"


@pytest.mark.parametrize("code", [*ERRORS, *FAILURES])
def test_every_code_is_explained(code: str) -> None:
    assert f"| `{code}` |" in PAGE.read_text()


def test_nothing_is_explained_that_is_not_there() -> None:
    assert all(row.hint for row in ERRORS.values())
    assert set(FAILED_WHEN) == set(FAILURES)
