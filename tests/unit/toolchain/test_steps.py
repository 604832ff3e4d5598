from __future__ import annotations

import errno
import os
import tempfile
from functools import partial
from pathlib import Path

import pytest

from converter.common.conversion import ConversionRefused
from converter.toolchain.steps import Steps


def failing(error: Exception) -> None:
    with Steps(lambda *_: None).step("save", at=0.0, code="conversion_failed", activity="saving"):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc"),
        RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 8"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    ],
)
def test_running_out_is_no_steps_own_failure(error: Exception):
    with pytest.raises(type(error)) as raised:
        failing(error)
    assert raised.value is error


def test_a_full_disk_is_no_steps_own_failure_either_where_the_library_does_not_tell(monkeypatch: pytest.MonkeyPatch):
    full = partial(Path("/dev/full").open, "wb")
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    error = RuntimeError("Protobuf serialization failed.")
    with pytest.raises(OSError, match="No space left") as raised:
        failing(error)
    assert raised.value.__cause__ is error


def test_any_other_error_is_the_steps_with_the_librarys_words():
    with pytest.raises(ConversionRefused, match="saving failed") as refused:
        failing(ValueError("no such thing\nat all"))
    assert (refused.value.code, refused.value.evidence) == ("conversion_failed", "no such thing")
