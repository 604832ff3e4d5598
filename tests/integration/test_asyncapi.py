"""The AsyncAPI document is one, says what is so, and its own examples hold."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import asyncapi
import pytest
from published import as_published, read

from converter.common.access import OPERATOR
from converter.common.topology import SUBSCRIBER
from converter.contracts.messages import FACTS
from converter.devstack.process import wheel_program

NODE = Path(__file__).parents[1] / "node"
DOCUMENT: dict[str, Any] = asyncapi.document()


def parsed(document: Path) -> subprocess.CompletedProcess[str]:
    """What the official parser makes of it."""
    command = [wheel_program("node"), str(NODE / "asyncapi.mjs"), str(document)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def test_the_committed_document_is_that_of_the_code() -> None:
    assert asyncapi.DOCUMENT.read_text() == asyncapi.text(), "run `make generate`"


def test_the_official_parser_takes_it_with_all_that_it_refers_to() -> None:
    answer = parsed(asyncapi.DOCUMENT)
    assert answer.returncode == 0, answer.stderr
    assert [line for line in answer.stderr.splitlines() if line.startswith(("error", "warning"))] == []
    assert {f"converter.{kind}.v1" for kind in FACTS} <= set(json.loads(answer.stdout))


def test_the_official_parser_would_tell_what_is_wrong(tmp_path: Path) -> None:
    shutil.copytree(asyncapi.CONTRACTS / "schemas", tmp_path / "schemas")
    (tmp_path / "schemas" / "log.schema.json").unlink()
    (tmp_path / "asyncapi.json").write_text(asyncapi.text())
    answer = parsed(tmp_path / "asyncapi.json")
    assert answer.returncode == 1
    assert "log.schema.json" in answer.stderr


@pytest.mark.parametrize("name", DOCUMENT["components"]["messages"])
def test_an_example_is_what_its_schema_says(name: str) -> None:
    message = DOCUMENT["components"]["messages"][name]
    (example,) = message["examples"]
    as_published(name).validate(example["payload"])
    assert f"./schemas/{name}.schema.json" == message["payload"]["$ref"]
    if "headers" in message:
        as_published("headers").validate(example["headers"])
        assert example["headers"]["ce-type"] == message["headers"]["allOf"][1]["properties"]["ce-type"]["const"]


def test_it_says_who_publishes_and_who_may_receive() -> None:
    said = {name: operation["description"] for name, operation in DOCUMENT["operations"].items()}
    assert said["stage.completed"] == (
        f"May be published by: stage-bie, stage-nef, stage-onnx. May be received by: {SUBSCRIBER}, {OPERATOR}."
    )
    assert said["promotion.completed"].startswith("May be published by: promoter.")
    assert said["log"].endswith(f"May be received by: {OPERATOR}.")


def test_the_stages_of_its_subjects_are_those_of_the_schemas() -> None:
    stages = DOCUMENT["channels"]["stage.started"]["parameters"]["stage"]["enum"]
    assert sorted(stages) == sorted(read("stage.started")["$defs"]["Stage"]["enum"])
