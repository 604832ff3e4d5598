"""The vendor's programs in the stage's jail, as a worker runs them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import onnx
import pytest
from standins.vendor_python import an_interpreter

from converter.common.conversion import ConversionTask
from converter.common.isolation import Converted, Isolation, Limits, Outcome, Refused
from converter.common.settings import StageSettings
from converter.contracts.job import Options
from converter.kneron import deployment
from converter.stage_onnx.__main__ import STAGE

from .conftest import a_classifier, settings


async def outcome(root: Path, python: Path) -> Outcome:
    workdir = root / "attempt"
    workdir.mkdir()
    onnx.save(a_classifier(), workdir / "model.onnx")
    confinement = STAGE.converters["kneron"].confinement(settings(python))
    async with Isolation(preload=["converter.kneron.onnx"], confinement=confinement) as isolation:
        return await run(isolation, STAGE.converters["kneron"].function, workdir)


async def run(isolation: Isolation, converter: str, workdir: Path) -> Outcome:
    task = ConversionTask(
        workdir=workdir,
        inputs={"model": workdir / "model.onnx"},
        filename="model.onnx",
        platform="720",
        model_id=1,
        version="0001",
        options=Options(),
    )
    return await isolation.run(
        converter,
        task,
        Limits(timeout_s=60, memory_mb=2048),
        on_progress=lambda *_: None,
        cancel=asyncio.Event(),
    )


async def test_the_vendors_programs_run_in_the_jail(tmp_path: Path):
    ended = await outcome(tmp_path, an_interpreter(tmp_path))
    assert isinstance(ended, Converted), ended
    assert ended.conversion.toolchain.version == "0.25.0"
    assert ended.run.isolation
    assert ended.run.isolation.seccomp


async def test_what_the_vendors_programs_reach_for_outside_is_denied(tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "bin").mkdir()
    python = an_interpreter(tmp_path / "bin")
    script, shebang = python.read_text(), "#!/bin/sh\n"
    python.write_text(script.replace(shebang, f"{shebang}echo trespass > {outside}/file\n"))
    ended = await outcome(tmp_path, python)
    if not (isinstance(ended, Converted) and ended.run.isolation and ended.run.isolation.landlock_abi):
        pytest.fail(f"Landlock did not confine it: {ended}")
    assert not list(outside.iterdir())


async def test_the_first_way_opens_no_socket_and_the_second_reaches_its_engine(tmp_path: Path):
    address = tmp_path / "engine.sock"
    engine = await asyncio.start_unix_server(lambda _, client: client.close(), address)
    ended = {}
    async with engine:
        for name, variables in (
            ("python", {"kneron_python": tmp_path / "python"}),
            ("image", {"kneron_image": f"toolchain@sha256:{'0' * 64}", "docker_host": f"unix://{address}"}),
        ):
            confinement = deployment.confinement(StageSettings(toolchain="kneron", **variables))
            confinement = msgspec.structs.replace(confinement, sources=(Path(__file__).parent,))
            workdir = tmp_path / name
            workdir.mkdir()
            (workdir / "address").write_text(str(address))
            async with Isolation(preload=["calls_an_engine"], confinement=confinement) as isolation:
                ended[name] = await run(isolation, "calls_an_engine:convert", workdir)
    assert isinstance(ended["python"], Refused)
    assert "PermissionError" in str(ended["python"].evidence)
    assert isinstance(ended["image"], Converted), ended["image"]


async def test_a_failure_in_the_jail_keeps_its_name(tmp_path: Path):
    ended = await outcome(tmp_path, an_interpreter(tmp_path, "external"))
    assert isinstance(ended, Refused)
    assert ended.code == "model_unsupported"
    assert ended.evidence == "External data for tensor conv1.weight is not loaded"
