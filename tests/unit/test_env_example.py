"""The committed list of variables is the one that the services read."""

from __future__ import annotations

from pathlib import Path

from env_example import env_example


def test_the_committed_file_lists_every_variable_as_it_is() -> None:
    committed = Path(__file__).parents[2] / "env.example"
    assert committed.read_text() == env_example(), "run `make generate`"
