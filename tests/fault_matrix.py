"""The faults that are tried, the tests that try each of them, and, after a run, the verdict on each.

`make soak` runs every cell and prints the matrix; `python tests/fault_matrix.py` writes it into docs/reliability.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
_BLOCK = re.compile(r"(<!-- table: faults -->\n).*?(<!-- end -->)", re.DOTALL)


class Row(NamedTuple):
    """A fault, what is expected of the system, and the tests: modules below `tests/`, or single tests of them."""

    fault: str
    expected: str
    cells: tuple[str, ...]


ROWS = (
    Row(
        "each service is killed at each step",
        "the job completes after the restart; nothing has an effect twice",
        (
            "e2e/test_failpoints.py::test_a_stage_killed_at_any_step_completes_the_job_once",
            "e2e/test_reuse.py::test_a_stage_that_is_killed_while_it_copies_completes_the_job_once",
            "integration/promoter/test_promotion.py::test_a_service_killed_at_any_step_leaves_a_promotion_that_completes",
            "integration/gateway/test_janitor.py::test_a_gateway_that_dies_between_deletion_and_removal_leaves_nothing_for_long",
            "integration/gateway/test_janitor.py::test_a_gateway_that_dies_right_before_a_creation_leaves_nothing_for_long",
            "integration/gateway/test_janitor.py::test_a_gateway_that_is_killed_in_mid_upload_leaves_nothing_for_long",
            "chaos/test_storm.py",
        ),
    ),
    Row(
        "a worker sleeps past `ack_wait`, another does its work, it wakes",
        "the second one wins; what the first does late is refused and not visible",
        (
            "chaos/test_sleepers.py",
            "e2e/test_scaling.py::test_a_gateway_that_sleeps_between_claim_and_creation_has_lost_the_lock",
            "e2e/test_scaling.py::test_a_promoter_that_slept_does_not_overwrite_what_came_after",
            "integration/stage/test_runner.py::test_a_worker_that_was_overtaken_stops_and_stores_nothing",
        ),
    ),
    Row(
        "nats-server is killed while it is written to",
        "nothing acknowledged is lost; services reconnect by themselves",
        (
            "integration/test_eventlog.py::test_a_server_that_dies_while_it_is_written_to_loses_and_doubles_nothing",
            "integration/gateway/test_outages.py::test_without_the_event_bus_every_request_says_so_and_leaves_nothing",
            "e2e/test_scaling.py::test_everything_goes_on_after_the_event_bus_was_killed",
            "chaos/test_storm.py",
        ),
    ),
    Row(
        "the leader of three is killed, frozen, cut off",
        "progress within seconds; the same invariants",
        ("chaos/test_cluster.py",),
    ),
    Row(
        "a worker is killed in a stage that takes hours, or a leader, with the shipped `ack_wait` (`make soak` alone)",
        "the worker's job moves on within 20 s (p99); no living worker loses its own",
        ("chaos/test_living_workers.py",),
    ),
    Row(
        "the object storage is down, frozen, slow (1 kB/s), fails, hangs up in mid-body, says 200 for an error",
        "502, or a stage that is repeated; nothing truncated is visible; nothing is left open",
        ("chaos/test_storage_faults.py", "integration/storage/test_s3_faults.py"),
    ),
    Row(
        "the file store refuses, fails, stalls, crawls, hangs up, loses its answer",
        "as the contract says; the same bytes under the same key in the end",
        ("integration/promoter/test_file_store.py", "integration/promoter/test_upload.py"),
    ),
    Row(
        "the issuer is down, slow, rotates or drops keys, has another clock",
        "cached keys serve; 503 only without any key; no 401 for a rotation",
        (
            "integration/gateway/test_tokens.py::test_clocks_may_differ_by_a_minute",
            "integration/gateway/test_tokens.py::test_a_rotated_key_is_found_without_a_401",
            "integration/gateway/test_tokens.py::test_a_key_that_the_issuer_drops_stops_counting_for_remembered_tokens",
            "integration/gateway/test_tokens.py::test_cached_keys_serve_for_a_day_while_the_issuer_is_down",
            "integration/gateway/test_tokens.py::test_without_any_key_set_nothing_can_be_checked",
            "integration/gateway/test_tokens.py::test_a_slow_issuer_keeps_nobody_waiting_whose_key_is_known",
            "integration/gateway/test_tokens.py::test_without_any_key_an_issuer_that_does_not_answer_is_not_waited_for",
            "integration/test_oauth.py::test_an_issuer_that_does_not_answer_in_time_is_not_waited_for",
            "integration/test_oauth.py::test_an_issuer_that_is_away_gives_no_token_until_it_is_back",
        ),
    ),
    Row(
        "the way to each of the four servers is cut, slow, late, silent, or garbles what passes",
        "jobs go on as soon as it is well; no service ends, and none goes on without a part of its own",
        ("chaos/test_bad_network.py", "integration/test_lost_connection.py"),
    ),
    Row(
        "duplicate, reordered, stale, malformed and newer messages",
        "an effect once; what is malformed is set aside and holds nobody up",
        (
            "chaos/test_messages.py",
            "integration/test_eventlog.py::test_a_write_that_the_network_swallows_is_stored_once",
            "integration/test_eventlog.py::test_a_writer_that_decided_from_an_old_state_decides_again",
            "integration/test_eventlog.py::test_what_is_no_event_does_not_hide_the_jobs_state",
            "integration/test_eventlog.py::test_a_fact_of_a_newer_release_is_no_obstacle",
            "integration/test_consumer.py::test_a_rejected_message_is_set_aside_and_holds_nobody_up",
        ),
    ),
    Row(
        "models that hang, crash, eat memory, or take their worker with them",
        "fails with its own code after so many attempts; the jobs behind it go on",
        (
            "chaos/test_poison.py",
            "integration/hostile/test_containment.py",
            "integration/stage/test_runner.py::test_a_job_whose_worker_died_is_taken_over_and_the_attempts_are_limited",
        ),
    ),
    Row(
        "a hundred posts of one user at once; three gateways",
        "one active job for each user, always",
        ("e2e/test_scaling.py::test_of_a_hundred_posts_of_one_user_at_once_one_is_accepted",),
    ),
    Row(
        "disk full under NATS, under storage, under the work directory; the event log at its limit",
        "clear errors; nothing acknowledged is lost; work goes on by itself when there is room",
        (
            "chaos/test_disk_full.py",
            "chaos/test_full_log.py",
            "integration/gateway/test_outages.py::test_a_full_event_log_is_told_as_that_and_the_same_request_is_taken_when_there_is_room",
            "integration/gateway/test_outages.py::test_a_storage_without_room_is_told_as_that_and_takes_the_next_job_when_it_has_some",
            "integration/stage/test_runner.py::test_a_work_directory_without_room_costs_no_attempt",
        ),
    ),
    Row(
        "ten power cuts of the event bus in the shipped configuration",
        "nothing acknowledged is lost",
        ("chaos/test_power_cuts.py",),
    ),
    Row(
        "the event bus's disk fails to flush",
        "writes are refused and readiness says so; nothing acknowledged is lost",
        ("chaos/test_bad_disk.py",),
    ),
    Row(
        "clients that vanish, do not read, trickle; file descriptors at the limit",
        "the API keeps answering; memory stays bounded",
        (
            "chaos/test_crowd.py",
            "integration/gateway/test_following.py::test_many_clients_follow_one_job_and_those_that_vanish_are_forgotten",
            "integration/gateway/test_following.py::test_a_client_that_does_not_read_costs_no_memory_and_holds_up_nobody",
            "integration/gateway/test_http_face.py::test_a_head_that_does_not_come_or_trickles_in_is_cut_off_and_an_idle_connection_is_not",
        ),
    ),
    Row(
        "10,000 queued jobs",
        "list, statistics, health and page stay quick; order is kept",
        ("chaos/test_long_queue.py",),
    ),
    Row(
        "a gateway is told to stop with uploads, downloads and streams open",
        "transfers finish within the grace; streams are told, and reconnect",
        (
            "chaos/test_shutdown.py",
            "integration/gateway/test_following.py::test_a_gateway_that_stops_ends_its_streams_at_once",
            "integration/gateway/test_outages.py::test_over_s3_a_gateway_that_stops_leaves_nothing",
        ),
    ),
    Row(
        "a rolling upgrade, versions side by side",
        "nothing lost, nothing stopped",
        ("chaos/test_rolling_upgrade.py",),
    ),
)


LEFT_OUT = pytest.StashKey[list[str]]()
"""Cells that the run was told to leave out."""


def is_of(nodeid: str, cell: str) -> bool:
    """Whether the test `nodeid` is `cell`, or in it; its parameters do not count."""
    name = nodeid.removeprefix("tests/").partition("[")[0]
    return name == cell or name.startswith(f"{cell}::")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every cell, for `-m fault`."""
    for item in items:
        if any(is_of(item.nodeid, cell) for row in ROWS for cell in row.cells):
            item.add_marker("fault")


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Keep which cells are left out."""
    for item in items:
        item.config.stash.setdefault(LEFT_OUT, []).append(item.nodeid)


COUNTED = "counted"
"""Name of the property that a cell records (`record_property`) of how much it did."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the matrix after a run of the cells, and what they have counted."""
    if "fault" not in config.option.markexpr:
        return
    outcomes: dict[str, bool] = {}
    counts: list[str] = []
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if isinstance(report, pytest.TestReport) and (report.when == "call" or report.failed):
            outcomes[report.nodeid] = outcomes.get(report.nodeid, True) and report.passed
            counts += [str(value) for name, value in report.user_properties if name == COUNTED]
    terminalreporter.section("fault matrix")
    for row in ROWS:
        terminalreporter.line(verdict(row, outcomes, config.stash.get(LEFT_OUT, [])))
    for count in counts:
        terminalreporter.line(f"counted {count}")


def verdict(row: Row, outcomes: Mapping[str, bool], left_out: Collection[str] = ()) -> str:
    """One line: how it went, how many cells ran, where, with which seeds, and what is missing.

    Args:
        row: which.
        outcomes: every test that ran, and whether it passed.
        left_out: tests that were told not to run.
    """
    ran = {nodeid: good for nodeid, good in outcomes.items() if any(is_of(nodeid, cell) for cell in row.cells)}
    absent = [cell for cell in row.cells if not any(is_of(nodeid, cell) for nodeid in ran)]
    without = sum(any(is_of(nodeid, cell) for cell in row.cells) for nodeid in left_out)
    good = sum(ran.values())
    how = "MISSING" if not ran else "FAILED" if good < len(ran) else "held"
    seeds = [seed for nodeid in ran for seed in re.findall(r"test_storm.*\[(\d+)\]", nodeid)]
    facts = [f"{good} of {len(ran)} held"]
    facts += [", ".join(sorted({nodeid.partition("::")[0].removeprefix("tests/") for nodeid in ran}))] if ran else []
    facts += [f"seeds {', '.join(seeds)}"] if seeds else []
    facts += [f"{without} left out"] if without else []
    facts += [f"not run: {', '.join(absent)}"] if absent else []
    return f"{how:8}{row.fault}: {'; '.join(facts)}"


def filled(page: str) -> str:
    """`page` with the table as it is here."""
    lines = ["| fault | expected | tests |\n", "| --- | --- | --- |\n"]
    for row in ROWS:
        modules = dict.fromkeys(cell.partition("::")[0] for cell in row.cells)
        cells = ", ".join(f"`tests/{module}`" for module in modules) or "none yet"
        lines.append(f"| {row.fault} | {row.expected} | {cells} |\n")
    return _BLOCK.sub(lambda block: block[1] + "".join(lines) + block[2], page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
