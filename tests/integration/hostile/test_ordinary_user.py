"""A hostile model ends in the same way where neither the worker nor the jail has any of root's privileges."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

WORKER = Path(__file__).with_name("ordinary_worker.py")
REPOSITORY = Path(__file__).parents[3]
NOBODY = 65534
AS_NOBODY = ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}")
"""Without capabilities, and still the owner of root's files: nobody else may read an interpreter below /root."""


async def test_each_way_to_end_is_told_apart_and_leaves_nothing_without_roots_privileges(tmp_path: Path):
    is_root = os.geteuid() == 0
    worker = await asyncio.create_subprocess_exec(
        *(*(AS_NOBODY if is_root else ()), sys.executable, str(WORKER), str(tmp_path)),
        stdout=PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{REPOSITORY / 'tests'}:{REPOSITORY / 'benchmarks'}"},
    )
    said, _ = await asyncio.wait_for(worker.communicate(), 100)
    uid = NOBODY if is_root else os.geteuid()
    found = json.loads(said)
    assert found["ends"] == {
        "an endless loop": ["Refused", uid],
        "hours of products": ["TimedOut", uid],
        "an input of 8 GB": ["OutOfMemory", uid],
        "the least integer over minus one": ["Crashed", uid],
        "a locked directory in place of its log": ["Converted", uid],
        "a good one": ["Converted", uid],
    }
    assert found["left"] == ["model.onnx"], "what the converter locked is gone, too"
