from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from converter.common.settings import SettingsError, StageSettings, load
from converter.contracts.job import Toolchain
from converter.kneron import deployment, driver, release

IMAGE = "kneron/toolchain@sha256:" + "0" * 64


def stage_settings(**variables: str) -> StageSettings:
    return load(StageSettings, {"TOOLCHAIN": "kneron"} | variables)


def deployed(monkeypatch: pytest.MonkeyPatch, settings: StageSettings) -> deployment.Deployment:
    for name, value in deployment.confinement(settings).environment.items():
        monkeypatch.setenv(name, value)
    return deployment.deployed()


def test_the_image_runs_without_network_in_the_jobs_directory(monkeypatch: pytest.MonkeyPatch):
    settings = stage_settings(KNERON_IMAGE=IMAGE, STAGE_MEMORY_MB="2000", DOCKER_HOST="unix:///run/user/7/docker.sock")
    found = deployed(monkeypatch, settings)
    command = found.command(Path("/work/job"))
    assert command[:3] == ["docker", "run", "--rm"]
    assert command[-2:] == [IMAGE, "driver.py"]
    options = " ".join(command)
    for expected in (
        "--network none",
        "--pull never",
        "--volume /work/job:/docker_mount --workdir /docker_mount",
        "--memory 2000m --memory-swap 2000m",
        "--cap-drop ALL",
        "--interactive",
        "--entrypoint /workspace/miniconda/envs/onnx1.13/bin/python",
        "--env PATH=/workspace/miniconda/envs/onnx1.13/bin:",
    ):
        assert expected in options
    assert found.environment()["DOCKER_HOST"] == "unix:///run/user/7/docker.sock"
    assert found.home == "/workspace"


def test_the_images_own_python_runs_with_its_programs_on_the_path(monkeypatch: pytest.MonkeyPatch):
    found = deployed(monkeypatch, stage_settings(KNERON_PYTHON="/workspace/env/bin/python", KNERON_THREADS="2"))
    assert found.command(Path("/work/job")) == ["/workspace/env/bin/python", "driver.py"]
    assert found.environment()["PATH"].startswith("/workspace/env/bin:")
    assert "DOCKER_HOST" not in found.environment()
    assert found.threads == 2


def test_only_what_starts_containers_may_open_sockets():
    here = deployment.confinement(stage_settings(KNERON_PYTHON="/workspace/env/bin/python"))
    assert here.may_execute
    assert not here.may_open_sockets
    assert Path("/data1") in here.writable
    there = deployment.confinement(stage_settings(KNERON_IMAGE=IMAGE))
    assert there.may_open_sockets
    assert there.writable == ()


@pytest.mark.parametrize(
    ("variables", "variable"),
    [
        ({}, "KNERON_PYTHON, KNERON_IMAGE"),
        ({"KNERON_PYTHON": "/python", "KNERON_IMAGE": IMAGE}, "KNERON_PYTHON, KNERON_IMAGE"),
        ({"KNERON_IMAGE": "kneron/toolchain:latest"}, "KNERON_IMAGE"),
        ({"KNERON_IMAGE": "--privileged@sha256:" + "0" * 64}, "KNERON_IMAGE"),
        ({"KNERON_IMAGE": IMAGE, "DOCKER_HOST": "tcp://engine:2375"}, "DOCKER_HOST"),
        ({"KNERON_PYTHON": "/python", "STAGE_CONCURRENCY": "2"}, "STAGE_CONCURRENCY"),
    ],
)
def test_settings_that_cannot_work_are_refused(variables: dict[str, str], variable: str):
    with pytest.raises(SettingsError) as refusal:
        stage_settings(**variables)
    assert [problem.variable for problem in refusal.value.problems] == [variable]


def test_the_driver_is_python_3_7_and_imports_nothing_of_ours():
    source = Path(driver.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 7))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names


@pytest.mark.parametrize(
    ("older", "newer", "compatible"),
    [
        ("0.20.0", "0.22.1", True),
        ("0.19.9", "0.20.0", False),
        ("0.22.1", "0.23", False),
        ("0.25.0", "0.29.0", True),
        ("0.29.0", "0.30.0", False),
        ("0.33.1", "0.33.1", True),
        ("unknown", "", True),
        ("unknown", "0.33.1", False),
    ],
)
def test_releases_across_a_break_do_not_mix(older: str, newer: str, compatible: bool):  # noqa: FBT001 - a row of the table
    try:
        release.check_compilable(Toolchain(name="kneron", version=older), newer)
    except release.ConversionRefused:
        assert not compatible
    else:
        assert compatible


def test_a_toolchain_is_told_before_it_converts_by_its_image_or_its_release(tmp_path: Path):
    digest = IMAGE.rpartition(":")[2]
    pinned = deployment.identity(stage_settings(KNERON_IMAGE=IMAGE))
    assert pinned == Toolchain(name="kneron", version="unknown", image_digest=digest)
    installed = stage_settings(KNERON_PYTHON="/workspace/env/bin/python", KNERON_HOME=str(tmp_path))
    assert deployment.identity(installed) is None
    (tmp_path / "version.txt").write_text("kneron toolchain v0.30.1\n")
    assert deployment.identity(installed) == Toolchain(name="kneron", version="0.30.1")
