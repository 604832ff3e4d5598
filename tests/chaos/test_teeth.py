"""What `make soak` breaks is where it is looked for; so a change of the source is noticed before the next soak."""

from __future__ import annotations

from .teeth import MUTANTS, fits


def test_every_rule_still_stands_where_it_would_be_broken():
    assert [mutant.rule for mutant in MUTANTS if not fits(mutant)] == []
