"""What a converter can reach, and what it cannot."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from integration.isolation.bench import Bench, open_bench

from converter.common.isolation import Confinement, Converted, Obtained
from converter.common.isolation.confine import ENVIRONMENT_KEPT

BY_PERMISSIONS_OR_LIMITS = {"raise_limit", "big_file", "many_files", "mount", "write_outside"}
BY_LANDLOCK = {
    "read_foreign_file",
    "read_etc",
    "list_foreign_directory",
    "write_outside",
    "write_installation",
    "link",
    "fifo",
    "service_environment",
    "service_memory",
}
BY_SECCOMP = {
    "tcp",
    "udp",
    "unix_socket",
    "execute",
    "trace",
    "signal_service",
    "signal_warden",
    "leave_session",
    "leave_group",
    "namespace",
}


async def surroundings(bench: Bench) -> dict[str, Any]:
    outcome = await bench.run("reports_its_surroundings")
    assert isinstance(outcome, Converted)
    return outcome.conversion.report


async def test_nothing_of_the_services_environment_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MINIO_SECRET_KEY", "the-secret")
    async with open_bench(tmp_path) as bench:
        found = await surroundings(bench)
    assert set(found["environment"]) <= {*ENVIRONMENT_KEPT, "HOME", "TMPDIR", "LANG"}
    assert found["environment"]["HOME"] == found["environment"]["TMPDIR"] == str(bench.workdir)
    assert "the-secret" not in found["initial_environment"]


async def test_a_converter_has_a_group_directory_and_descriptors_of_its_own(bench: Bench):
    found = await surroundings(bench)
    assert found["is_group_leader"]
    assert found["directory"] == str(bench.workdir)
    assert found["core"] == [0, 0]
    assert int(found["effective_capabilities"], 16) == 0
    descriptors = found["descriptors"]
    assert descriptors.keys() == {"0", "1", "2", "3"}
    assert descriptors["0"] == "/dev/null"
    assert descriptors["1"] == descriptors["2"] != descriptors["3"]


async def test_what_the_kernel_grants_is_denied_to_a_converter(bench: Bench, tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = {"port": server.getsockname()[1], "service": os.getpid(), "secret": str(secret)}
        outcome = await bench.run("tries_everything", model=json.dumps(target))
    assert isinstance(outcome, Converted)
    obtained = outcome.run.isolation
    assert isinstance(obtained, Obtained)
    denied = {name for name, result in outcome.conversion.report["results"].items() if result != "allowed"}
    expected = set(BY_PERMISSIONS_OR_LIMITS)
    if obtained.landlock_abi:
        expected |= BY_LANDLOCK
    if obtained.seccomp:
        expected |= BY_SECCOMP
    assert expected <= denied


async def test_what_is_granted_beyond_is_reachable(tmp_path: Path):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "file").write_text("shared")
    model = json.dumps({"port": 1, "service": os.getpid(), "secret": str(shared / "file")})
    async with open_bench(tmp_path, Confinement(readable=(shared,))) as bench:
        outcome = await bench.run("tries_everything", model=model)
    assert isinstance(outcome, Converted)
    assert outcome.conversion.report["results"]["read_foreign_file"] == "allowed"


@pytest.mark.parametrize("lacking", [["landlock"], ["landlock", "seccomp"]], ids=" and ".join)
def test_what_an_older_kernel_does_not_grant_is_recorded(tmp_path: Path, lacking: list[str]):
    script = Path(__file__).with_name("older_kernel.py")
    ran = subprocess.run([sys.executable, script, tmp_path, *lacking], capture_output=True, check=True)
    obtained = msgspec.json.decode(ran.stdout, type=Obtained)
    assert (obtained.landlock_abi, obtained.tcp_denied, obtained.signals_scoped) == (0, False, False)
    assert obtained.seccomp is ("seccomp" not in lacking)
    assert obtained.capabilities_dropped
