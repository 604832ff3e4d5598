"""A stage's program does not start with a key that is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from keys import key_pair


@pytest.mark.parametrize("found", ["missing", "public"])
def test_a_file_that_holds_no_signing_key_ends_it_and_is_named(tmp_path: Path, found: str):
    path = key_pair(tmp_path).public if found == "public" else tmp_path / "missing.pem"
    settings = {
        "NATS_URL": "nats://127.0.0.1:1",
        "STORAGE_BACKEND": "local",
        "LOCAL_STORAGE_DIR": str(tmp_path),
        "PROVENANCE_KEY_FILE": str(path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "converter.stage_onnx"],
        env={"PATH": os.environ["PATH"]} | settings,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (refused,) = [json.loads(line) for line in done.stdout.splitlines() if b"settings.refused" in line]
    assert refused["variable"] == "PROVENANCE_KEY_FILE"
    assert str(path) in refused["found"]
    assert "Ed25519" in refused["allowed"]
