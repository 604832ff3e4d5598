"""How a conversion ended is decided by what the warden saw before anything that the converter said."""

from __future__ import annotations

from pathlib import Path

import pytest

from converter.common.conversion import Conversion
from converter.common.isolation import (
    Cancelled,
    Converted,
    Crashed,
    Failed,
    Limits,
    Outcome,
    OutOfMemory,
    Refused,
    Run,
    TimedOut,
    failure,
)
from converter.common.isolation.messages import Cause, Declined, Ended, Exhausted, Finished, Result
from converter.common.isolation.verdict import Heard, outcome
from converter.contracts.job import Stage, Toolchain

LIMITS = Limits(timeout_s=60, memory_mb=100, cpu_s=30)
RUN = Run()


def ended(cause: Cause, exit_code: int = 0) -> Ended:
    return Ended(number=1, cause=cause, exit_code=exit_code, peak_memory_bytes=5, duration_s=1.5)


@pytest.fixture
def finished(tmp_path: Path) -> Finished:
    (tmp_path / "model").write_bytes(b"x")
    return Finished(
        Conversion(
            artifact=Path("model"),
            filename="model",
            media_type="a/b",
            toolchain=Toolchain(name="t", version="1"),
            report={},
        )
    )


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        ("exit", Converted),
        ("timeout", TimedOut),
        ("memory", OutOfMemory),
        ("kernel", OutOfMemory),
        ("stop", Cancelled),
        ("lost", Crashed),
    ],
)
def test_a_result_counts_only_if_its_process_ended_by_itself(
    tmp_path: Path, finished: Finished, cause: Cause, kind: type
):
    found = outcome(ended(cause), Heard(result=finished), LIMITS, tmp_path)
    assert isinstance(found, kind)
    assert (found.run.duration_s, found.run.peak_memory_bytes) == (1.5, 5)


@pytest.mark.parametrize(
    ("exit_code", "last_lines", "expected"),
    [
        (0, b"", Crashed(run=RUN, exit_code=0)),
        (137, b"", Crashed(run=RUN, exit_code=137)),
        (-11, b"std::bad_alloc", Crashed(run=RUN, signal="SIGSEGV")),
        (-9, b"", Crashed(run=RUN, signal="SIGKILL")),
        (-6, b"assertion failed", Crashed(run=RUN, signal="SIGABRT")),
        (-6, b"what():  std::bad_alloc\n", OutOfMemory(RUN, 100, "std::bad_alloc")),
        (-24, b"", TimedOut(RUN, 30)),
        (-50, b"", Crashed(run=RUN, signal="signal 50")),
    ],
)
def test_without_a_result_the_status_tells(tmp_path: Path, exit_code: int, last_lines: bytes, expected: Outcome):
    end = Ended(number=1, cause="exit", exit_code=exit_code, peak_memory_bytes=0, duration_s=0)
    assert outcome(end, Heard(last_lines=last_lines), LIMITS, tmp_path) == expected


def test_what_was_broken_outweighs_the_kill_that_followed(tmp_path: Path):
    found = outcome(ended("stop", -9), Heard(broken="it lied"), LIMITS, tmp_path)
    assert isinstance(found, Crashed)
    assert found.broken == "it lied"


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_a_link_is_no_artifact(tmp_path: Path, finished: Finished, link: str):
    workdir = tmp_path / "work"
    workdir.mkdir()
    getattr(workdir / "model", link)(tmp_path / "model")
    assert isinstance(outcome(ended("exit"), Heard(result=finished), LIMITS, workdir), Crashed)


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (Declined(code="model_invalid", message="m", node="n"), Refused),
        (Declined(code="made_up", message="m"), Crashed),
        (Exhausted("MemoryError"), OutOfMemory),
    ],
)
def test_what_it_said_is_taken_where_it_can_be(tmp_path: Path, result: Result, kind: type):
    assert isinstance(outcome(ended("exit"), Heard(result=result), LIMITS, tmp_path), kind)


@pytest.mark.parametrize(
    ("failed", "code", "message"),
    [
        (
            Refused(run=RUN, code="model_invalid", message="it is broken", hint="mend it"),
            "model_invalid",
            "it is broken",
        ),
        (TimedOut(RUN, 2.5), "stage_timeout", "The conversion ran out of time; it may take 2.5 s."),
        (OutOfMemory(RUN, 64), "stage_out_of_memory", "The conversion ran out of memory; it may use 64 MiB."),
        (Crashed(run=RUN, signal="SIGSEGV"), "stage_crashed", "The conversion's process died of SIGSEGV."),
        (
            Crashed(run=RUN, exit_code=0),
            "stage_crashed",
            "The conversion's process left with status 0 and without a result.",
        ),
        (
            Crashed(run=RUN, broken="it lied"),
            "stage_crashed",
            "The conversion's process cannot be trusted: it lied.",
        ),
    ],
)
def test_each_failure_has_its_own_code_and_facts(failed: Failed, code: str, message: str):
    error = failure(failed, Stage.BIE)
    assert (error.code, error.message, error.stage) == (code, message, Stage.BIE)


def test_a_refusals_own_hint_replaces_the_codes():
    assert failure(Refused(run=RUN, code="model_invalid", message="m", hint="mend it"), Stage.ONNX).hint == "mend it"
