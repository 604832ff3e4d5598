from __future__ import annotations

import pytest

from converter.contracts.failures import FAILURES
from converter.kneron.known_failures import KNOWN, Known, Log, refusal


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.pattern.pattern[:40])
def test_every_known_failure_has_a_code_and_a_hint(known: Known):
    assert known.hint or FAILURES[known.code].hint


@pytest.mark.parametrize(
    ("line", "code", "node", "op"),
    [
        ("undefined CPU op [Foo] of node [bar/1]", "operator_unsupported", "bar/1", "Foo"),
        ("Command '['./fx']' died with <Signals.SIGABRT: 6>.", "toolchain_aborted", None, None),
        ("Command '['./fx']' died with <Signals.SIGKILL: 9>.", "stage_out_of_memory", None, None),
        ("Cannot find the corresponding input image folder of model input x:0", "calibration_mismatch", None, None),
        ("(op_type:Add) Inferred shape and existing shape differ in rank", "model_invalid", None, None),
        ("x.cpp:1: Assertion `weight_radix_vect.size() == (size_t)o_c' failed", "quantisation_failed", None, None),
        ("Assertion weight_radix_vect.size() == (size_t)o_c failed", "quantisation_failed", None, None),
        ("Only support models after fix point analysis", "bie_incompatible", None, None),
        ("Unsupported model IR version: 10", "ir_version_unsupported", None, None),
        ("External data w.bin is not loaded", "model_unsupported", None, None),
        ("ModuleNotFoundError: No module named 'ktc'", "toolchain_unavailable", None, None),
        ("hw not support", "operator_unsupported", None, None),
        ("failed to compile", "compilation_failed", None, None),
        ("err: 4", "compilation_failed", None, None),
    ],
)
def test_the_toolchains_words_become_codes(line: str, code: str, node: str | None, op: str | None):
    log = Log()
    log.add(line)
    told = refusal("analyse", "RuntimeError: it failed", log)
    assert (told.code, told.node, told.op, told.evidence) == (code, node, op, line)


def test_the_line_that_tells_more_wins_wherever_it_stands():
    for lines in (("err: 4", "undefined CPU op [A] of node [b]"), ("undefined CPU op [A] of node [b]", "err: 4")):
        log = Log()
        for line in lines:
            log.add(line)
        assert refusal("compile", "RuntimeError: it failed", log).code == "operator_unsupported"


def test_an_error_by_itself_is_read_too():
    assert refusal("optimise", "RuntimeError: Unsupported model IR version", Log()).code == "ir_version_unsupported"


def test_an_unknown_failure_is_its_steps():
    told = refusal("compile", "ValueError: nobody knows", Log())
    assert (told.code, told.evidence) == ("compilation_failed", "ValueError: nobody knows")
