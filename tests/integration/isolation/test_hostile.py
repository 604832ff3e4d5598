"""A converter that a model has taken over: nothing that it says or leaves behind harms the service."""

from __future__ import annotations

import pytest
from integration.isolation.bench import Bench

from converter.common.isolation import Converted, Crashed
from converter.common.isolation.stage_log import LINE_BYTES, LINES_AT_ONCE


@pytest.mark.parametrize(
    ("converter", "broken"),
    [
        ("speaks_no_json", "it sent what is no message"),
        ("speaks_in_a_maze", "it sent what is no message"),
        ("speaks_without_end", "it sent a message of more than 16777216 bytes"),
        ("speaks_twice", "it sent a message out of its order"),
        ("confines_again", "it sent a message out of its order"),
        ("fails_with_an_unknown_code", "it failed with an unknown code"),
        ("names_a_foreign_artifact", "its artifact is not a file of its own"),
        ("climbs_out_with_its_artifact", "its artifact is not a file of its own"),
        ("names_a_missing_artifact", "its artifact is not a file of its own"),
        ("names_a_directory", "its artifact is not a file of its own"),
        ("names_a_path_with_a_nul", "its artifact is not a file of its own"),
        ("gives_a_filename_with_a_path", "its artifact has no usable name"),
        ("gives_a_filename_with_a_header", "its artifact has no usable name"),
    ],
)
async def test_what_cannot_be_believed_is_a_crash(bench: Bench, converter: str, broken: str):
    (bench.root / "secret").write_text("secret")
    outcome = await bench.run(converter)
    assert isinstance(outcome, Crashed)
    assert outcome.broken is not None
    assert outcome.broken.startswith(broken)


async def test_a_word_that_its_end_cut_short_is_a_crash_with_its_status(bench: Bench):
    outcome = await bench.run("ends_in_the_middle_of_a_word")
    assert isinstance(outcome, Crashed)
    assert outcome.exit_code == 0


async def test_a_log_is_bounded_and_says_what_is_missing(bench: Bench):
    outcome = await bench.run("prints_much", log_bytes=1000)
    assert isinstance(outcome, Converted)
    assert bench.log.startswith("line 0\nline 1\n")
    assert len(bench.log) < 1100
    assert bench.log.endswith(" bytes more are not kept]\n")
    assert LINES_AT_ONCE <= len(bench.lines) < 20_000
    assert any(line.endswith(" lines are left out here; the stage's log has them]") for line in bench.lines)


async def test_a_line_that_does_not_end_is_cut(bench: Bench):
    assert isinstance(await bench.run("prints_no_newline"), Converted)
    assert set("".join(bench.lines)) == {"x"}
    assert all(len(line) <= LINE_BYTES for line in bench.lines)


@pytest.mark.parametrize(
    "converter", ["removes_its_log", "puts_a_locked_directory_in_place_of_its_log", "swells_its_log"]
)
async def test_a_log_that_was_tampered_with_is_a_plain_file_again(bench: Bench, converter: str):
    await bench.run(converter, log_bytes=1000)
    log = bench.workdir / "stage.log"
    assert log.is_file()
    assert not log.is_symlink()
    assert "before" in bench.log
    assert bench.log.endswith("[the conversion tampered with its log; this is what it was]\n")


async def test_what_was_put_in_place_of_the_log_is_left_to_whoever_removes_the_work_directory(bench: Bench):
    outcome = await bench.run("puts_a_locked_directory_in_place_of_its_log")
    assert isinstance(outcome, Converted)
    assert list(bench.workdir.glob("*/inner/file")), "it may be large, and removing it would hold up the event loop"


async def test_a_directory_that_was_locked_can_be_read_again(bench: Bench):
    outcome = await bench.run("locks_its_directory")
    assert isinstance(outcome, Converted)
    assert outcome.conversion.artifact.read_bytes() == b"converted"
