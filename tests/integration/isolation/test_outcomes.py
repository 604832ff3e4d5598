"""How a conversion ends, and that the ways are told apart."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from integration.isolation.bench import Bench, open_bench
from waiting import eventually

from converter.common.isolation import (
    Cancelled,
    Confinement,
    Converted,
    ConvertersUnavailable,
    Crashed,
    Isolation,
    OutOfMemory,
    Refused,
    TimedOut,
)

running = psutil.pid_exists  # true of a zombie, too


async def pid_of(bench: Bench) -> int:
    """The converter's, once it runs."""

    async def named() -> list[int]:
        return bench.pids()

    (pid,) = await eventually(named)
    return pid


async def test_a_conversion_gives_its_result_progress_log_and_figures(bench: Bench):
    outcome = await bench.run("converts")
    assert isinstance(outcome, Converted)
    assert outcome.conversion.artifact.read_bytes() == b"converted"
    assert outcome.conversion.report == {"nodes": 3, "read": "a model"}
    assert outcome.conversion.warnings == ("beware",)
    assert bench.progress == [(0.25, "reading"), (0.0, "lost"), (1.0, "done")]
    assert bench.lines == ["a line from Python", "a line from C", "a line from the standard error"]
    assert bench.log.splitlines() == bench.lines
    assert 5 << 20 < outcome.run.peak_memory_bytes < 100 << 20
    assert 0 < outcome.run.duration_s < 5
    assert outcome.run.isolation is not None


async def test_a_refusal_keeps_its_facts(bench: Bench):
    outcome = await bench.run("refuses")
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.message) == ("model_unsupported", "no such operator ?")
    assert (outcome.node, outcome.op, outcome.evidence, outcome.hint) == ("conv1", "Loop", "line 1", "remove it")


@pytest.mark.parametrize(
    ("converter", "evidence"),
    [
        ("raises", "LookupError: first line"),
        ("reports_no_json", "NotImplementedError: a object is not JSON"),
        ("is_missing", "AttributeError: module 'trial_converters' has no attribute 'is_missing'"),
    ],
)
async def test_an_unexpected_error_is_a_failed_conversion_with_its_first_line(
    bench: Bench, converter: str, evidence: str
):
    outcome = await bench.run(converter)
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.evidence) == ("conversion_failed", evidence)
    assert "Traceback" in bench.log


async def test_wall_time_is_limited(bench: Bench):
    started = time.monotonic()
    outcome = await bench.run("sleeps", timeout_s=0.3)
    assert isinstance(outcome, TimedOut)
    assert outcome.limit_s == 0.3
    assert time.monotonic() - started < 2
    assert not running(*bench.pids())


async def test_cpu_time_is_limited(bench: Bench):
    outcome = await bench.run("burns_cpu", cpu_s=1)
    assert isinstance(outcome, TimedOut)
    assert outcome.limit_s == 1


@pytest.mark.parametrize(
    ("converter", "evidence"),
    [
        ("fills_memory", None),
        ("fills_memory_in_children", None),
        ("allocates_at_once", "MemoryError"),
        ("fails_in_a_library_for_memory", "RuntimeError: [ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc"),
        ("aborts_for_memory", "std::bad_alloc"),
    ],
)
async def test_memory_is_limited_however_it_is_taken(bench: Bench, converter: str, evidence: str | None):
    outcome = await bench.run(converter)
    assert isinstance(outcome, OutOfMemory)
    assert (outcome.limit_mb, outcome.evidence) == (200, evidence)


async def test_a_segmentation_fault_is_a_crash_that_leaves_a_traceback(bench: Bench):
    outcome = await bench.run("reads_null")
    assert isinstance(outcome, Crashed)
    assert (outcome.signal, outcome.exit_code, outcome.broken) == ("SIGSEGV", None, None)
    assert "reads_null" in bench.log


@pytest.mark.parametrize(("converter", "code"), [("exits", 3), ("exits_at_once", 4)])
async def test_leaving_without_a_result_is_a_crash(bench: Bench, converter: str, code: int):
    outcome = await bench.run(converter)
    assert isinstance(outcome, Crashed)
    assert (outcome.signal, outcome.exit_code) == (None, code)


async def test_a_cancelled_conversion_is_killed_at_once(bench: Bench):
    running_conversion = asyncio.create_task(bench.run("sleeps"))
    pid = await pid_of(bench)
    started = time.monotonic()
    bench.cancel.set()
    assert isinstance(await running_conversion, Cancelled)
    assert time.monotonic() - started < 2
    assert not running(pid)


async def test_one_that_is_cancelled_before_it_begins_never_runs(bench: Bench):
    bench.cancel.set()
    assert isinstance(await bench.run("converts"), Cancelled)
    assert bench.progress == []


async def test_a_caller_that_is_cancelled_leaves_no_process(bench: Bench):
    running_conversion = asyncio.create_task(bench.run("sleeps"))
    pid = await pid_of(bench)
    running_conversion.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running_conversion
    assert not running(pid)
    assert isinstance(await bench.run("converts"), Converted)


async def test_an_error_of_the_callers_own_ends_the_conversion(bench: Bench):
    bench.progress = None  # type: ignore[assignment]  # to make the callback fail
    with pytest.raises(AttributeError):
        await asyncio.wait_for(bench.run("sleeps"), 5)


async def test_what_a_converter_leaves_running_is_killed_with_it(bench: Bench):
    outcome = await bench.run("leaves_children")
    assert isinstance(outcome, Converted)
    assert len(bench.pids()) == 2
    assert not any(map(running, bench.pids()))


async def test_a_fork_bomb_is_killed_to_the_last_process(bench: Bench):
    outcome = await bench.run("forks_for_ever", timeout_s=0.5, memory_mb=2000)
    assert isinstance(outcome, TimedOut | OutOfMemory)
    ((_, activity),) = bench.progress
    with pytest.raises(ProcessLookupError):
        os.killpg(int(activity.removeprefix("group ")), 0)


async def test_conversions_at_once_do_not_touch_each_other(tmp_path: Path, bench: Bench):
    names = ["converts", "reads_null", "refuses", "leaves_children", "converts"]
    outcomes = await asyncio.gather(*map(bench.run, names))
    assert [type(outcome) for outcome in outcomes] == [Converted, Crashed, Refused, Converted, Converted]


async def test_when_the_warden_dies_its_conversion_has_crashed_and_the_next_one_runs(bench: Bench):
    running_conversion = asyncio.create_task(bench.run("sleeps"))
    pid = await pid_of(bench)
    os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)
    outcome = await running_conversion
    assert isinstance(outcome, Crashed)
    assert outcome.broken == "the process that watched it died"

    async def gone() -> bool:
        return not running(pid)

    await eventually(gone)
    assert isinstance(await bench.run("converts"), Converted)


async def test_a_warden_that_hangs_is_killed_with_its_conversion(bench: Bench):
    running_conversion = asyncio.create_task(bench.run("sleeps"))
    pid = await pid_of(bench)
    os.kill(psutil.Process(pid).ppid(), signal.SIGSTOP)
    bench.cancel.set()
    assert isinstance(await running_conversion, Crashed)

    async def gone() -> bool:
        return not running(pid)

    await eventually(gone)


async def test_a_converter_that_cannot_be_imported_is_known_at_the_start():
    with pytest.raises(ConvertersUnavailable, match="cannot import no_such_module: ModuleNotFoundError"):
        async with Isolation(preload=["json", "no_such_module"]):
            pass


async def test_a_converter_may_run_programs_where_that_is_allowed(tmp_path: Path):
    async with open_bench(tmp_path, Confinement(may_execute=True)) as bench:
        outcome = await bench.run("runs_a_program")
    assert isinstance(outcome, Converted)
    assert outcome.conversion.report == {"said": "hello\n", "read": "a model"}
