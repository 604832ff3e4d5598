"""ONNX Runtime tells nobody what it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from converter.common.isolation.confine import ENVIRONMENT_KEPT

TRACES = ".cache/Microsoft"


@pytest.mark.parametrize(("importing", "traces"), [("onnxruntime", 1), ("converter.toolchain.sessions", 0)])
def test_what_imports_it_by_us_leaves_no_id_that_it_would_tell(tmp_path: Path, importing: str, traces: int):
    command = [sys.executable, "-c", f"import {importing}"]
    subprocess.run(command, env={"HOME": str(tmp_path)}, check=True)
    assert len(list(tmp_path.glob(TRACES))) == traces


def test_a_conversion_keeps_that_it_is_not_to():
    assert "ORT_DISABLE_TELEMETRY" in ENVIRONMENT_KEPT
